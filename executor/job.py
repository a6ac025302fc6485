"""The whole job: waves of requests, each prefilled in sweeps and decoded round by round, lowered as it goes.

The schedule of round n + 1 is lowered when round n begins, before anybody knows who will still be there: so the ring
fills with the next round's first weights while this one ends. What turns out to have nothing left to do, does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from executor.engine import Action, Engine
from executor.floor import Floor
from executor.memory import Ledger
from executor.requests import Request
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext
from executor.tasks.table import action
from specsim.answer import Plan
from specsim.schedule.graph import parse
from specsim.schedule.lower import NEXT_WAVE, append_prefill, append_round, builder
from specsim.schedule.passes import Deps
from specsim.schedule.round import RoundShape, RoundState


@dataclass(slots=True, eq=False)
class Wave:
    """What was done for one wave: prompt lengths, and the shapes of its rounds by number as they turned out. Enough to
    lower it once more."""

    lengths: list[int]
    first_sweep: int
    shapes: dict[int, RoundShape]


class Job:
    """Drives an engine through a plan: lowers, submits, waits. What tasks do, they do with `context` and `drafts`."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        floor: Floor,
        ledger: Ledger,
        context: Context,
        drafts: DraftContext | None,
    ) -> None:
        self.plan, self.engine, self.floor, self.batches, self.ledger = plan, engine, floor, floor.batches, ledger
        self.context, self.drafts = context, drafts
        self.builder = builder(plan.decision)
        self.waves: list[Wave] = []
        self.phase = "load"
        self.rounds = self.sweeps = 0
        self.prefill_s = self.decode_s = 0.0
        self._submitted = 0

    def run(self, requests: Iterable[Request], on_tick: Callable[[], None] = lambda: None) -> None:
        """Serve all requests; `on_tick` is called a few times a second meanwhile, and when all is done.

        Raises InputError where there is no room for their caches, and the first error of any task.
        """
        self.batches.receive(requests)
        while self.batches.waiting:
            self._wave(on_tick)
        if self.batches.in_flight or self.batches.served != self.batches.done:
            raise RuntimeError(f"{self.batches.done} of {self.batches.served} requests have ended")

    def _wave(self, on_tick: Callable[[], None]) -> None:
        case, decision = self.plan.case, self.plan.decision
        policy = decision.policy
        sequences = self.batches.next_wave()
        self.floor.shapes = {}
        wave = Wave([len(s.tokens) for s in sequences], self.sweeps, self.floor.shapes)
        self.waves.append(wave)
        for first in range(0, len(sequences), policy.prefill_batch):
            self.floor.sweeps[self.sweeps] = sequences[first : first + policy.prefill_batch]
            self.sweeps += 1
        self.phase = "prefill"
        started = time.perf_counter()
        ends = append_prefill(self.builder, case, decision, wave.lengths, (), wave.first_sweep)
        self._submit()
        state = RoundState.after(ends, self.plan.decision)
        this_round = self._lower_round(state)
        self.engine.wait(ends, on_tick)
        prefilled = time.perf_counter()
        self.prefill_s += prefilled - started
        self.phase = "decode"
        while self.batches.waiting_to_refill or self.batches.in_flight:  # in this order: who waited is in flight then
            next_round = self._lower_round(state)
            self.engine.wait(this_round, on_tick)
            this_round = next_round
        self.decode_s += time.perf_counter() - prefilled
        self.engine.drain(on_tick)  # of what was lowered ahead: the next wave takes the same places
        self.rounds += NEXT_WAVE - 1

    def _lower_round(self, state: RoundState) -> Deps:
        """Lower one more round for those who are there now; returns the tasks that end it."""
        sequences, number = self.batches.in_flight, self.rounds
        self.rounds += 1
        rows = max(1, len(sequences))
        context = sum(len(s.tokens) - 1 for s in sequences) / rows
        refills = self.batches.waiting_to_refill
        joining = self.plan.case.workload.prompt_tokens_mean if refills else 0.0
        shape = RoundShape(float(rows), max(1.0, context), joining)
        low = append_round(self.builder, self.plan.case, self.plan.decision, shape, number, state)
        self.floor.placements[number] = low.layers()
        self.floor.placements.pop(number - 3, None)  # at most two rounds are under way
        self._submit()
        return self.builder.round_ends[-1]

    def _submit(self) -> None:
        tasks = self.builder.tasks[self._submitted :]
        self._submitted = len(self.builder.tasks)
        names = [parse(task.name) for task in tasks]
        actions: list[Action] = [
            action(self.context, self.drafts, name, task) for name, task in zip(names, tasks, strict=True)
        ]
        self.engine.submit(tasks, actions)
