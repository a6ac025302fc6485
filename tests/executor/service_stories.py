"""Services of tiny checkpoints, and somebody who asks and listens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from executor.checkpoint.checkpoint import Checkpoint
from executor.checkpoint.read import Reader
from executor.devices import Devices
from executor.engine import Engine
from executor.links import Link
from executor.requests import GREEDY, Generation, Request
from executor.service.service import Ended, Service, Ticket
from executor.setup import Ways, prepare
from executor.speculation.sampling import Sampling
from specsim.answer import Plan

#: a test that has to wait longer has hung
PATIENCE_S = 60.0


@contextmanager
def service(
    plan: Plan, target: Checkpoint, draft: Checkpoint | None = None, *, queue: int = 64, keep: bool = True
) -> Iterator[Service]:
    devices = Devices("gpu" if plan.case.machine.gpu else "cpu")
    with Engine(spans=0) as engine:
        job = prepare(plan, target, draft, engine, devices, Link(), Reader(), Ways(poison=True))
        with Service(job, queue, keep=keep) as serving:
            yield serving


class Client:
    """Asks once; `tokens` waits for the next that are committed, `end` for all that is left."""

    def __init__(
        self, serving: Service, prompt: Sequence[int], new: int = 8, sampling: Sampling = GREEDY, **more: Any
    ) -> None:
        self.events: SimpleQueue[tuple[int, ...] | Ended] = SimpleQueue()
        self.heard: list[int] = []
        self.ticket: Ticket = serving.ask(
            lambda index: Request(index, str(index), tuple(prompt), new, sampling=sampling, key=0, **more),
            self.events.put,
        )

    def tokens(self) -> tuple[int, ...]:
        event = self.events.get(timeout=PATIENCE_S)
        assert isinstance(event, tuple)
        self.heard += event
        return event

    def end(self) -> Generation:
        while not isinstance(event := self.events.get(timeout=PATIENCE_S), Ended):
            self.heard += event
        assert event.error is None
        assert event.generation is not None
        assert event.generation.output_ids == self.heard
        return event.generation
