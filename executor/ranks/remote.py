"""What every rank but the first does: it lowers what it is told, and computes its own layers of each pass."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

import torch

from executor.admission import room
from executor.checkpoint.checkpoint import Checkpoint
from executor.checkpoint.read import Reader
from executor.decoder.cache import KvArena
from executor.devices import Devices
from executor.engine import Engine
from executor.links import Link
from executor.lowering import Lowering
from executor.passes import Pass
from executor.ranks.messages import End, Kind, Order, Prefill, Report, Room, Round, Share, hear
from executor.ranks.pulse import Reports
from executor.ranks.stage import Stage, stage_of
from executor.ranks.wire import receive_pass
from executor.ranks.world import Channel, RankError, World
from executor.setup import Ways, check_model, ledger_of, staging, stores
from executor.tasks.context import Context, visit
from specsim.answer import Plan
from specsim.decision import Decision, LayerPlacement
from specsim.schedule.graph import TaskName
from specsim.schedule.passes import on_main

_TICK_S: Final = 0.1


class DismissedError(Exception):
    """Rank 0 ended with an error of its own, which it tells."""


class Orders:
    """What rank 0 says, as it comes: a thread listens, so that who waits can look after the engine meanwhile."""

    def __init__(self, desk: Channel) -> None:
        self._queue: SimpleQueue[Order | RankError] = SimpleQueue()
        self._thread = threading.Thread(target=self._listen, args=(desk,), name="specsim orders", daemon=True)
        self._thread.start()

    def next(self, timeout: float) -> Order | None:
        """None where nothing was said until then. Raises RankError where rank 0 is gone, DismissedError where it
        failed."""
        try:
            order = self._queue.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(order, RankError):
            raise order
        if isinstance(order, End) and order.failed:
            raise DismissedError
        return order

    def close(self) -> None:
        """After the channel was closed."""
        self._thread.join()

    def _listen(self, desk: Channel) -> None:
        try:
            while True:
                order = hear(desk)
                self._queue.put(order)
                if isinstance(order, End):
                    return
        except RankError as error:
            self._queue.put(error)


@dataclass(slots=True, eq=False)
class Arrivals:
    """Passes as the stage before sends them, and which turned out to have nobody in them."""

    stage: Stage
    decision: Decision
    main: str
    placements: dict[int, tuple[LayerPlacement, ...]] = field(default_factory=dict)
    arena: KvArena | None = None
    deserted: set[str] = field(default_factory=set)

    def open_pass(self, name: TaskName) -> Pass:
        assert self.stage.back is not None
        assert self.arena is not None, "caches are made before the first prompt comes"
        prefill = name.phase == "prefill"
        layers = on_main(self.decision.layers, self.main) if prefill else self.placements[name.round]
        p = receive_pass(self.stage.back, self.arena, layers)
        if p.empty:
            self.deserted.add(visit(name))
        return p

    def live(self, name: TaskName) -> bool:
        """Until a pass has come, it may bring somebody."""
        return any(visit(name, batch) not in self.deserted for batch in name.batch)


def serve(
    plan: Plan,
    target: Checkpoint,
    engine: Engine,
    devices: Devices,
    link: Link,
    reader: Reader,
    ways: Ways,
    world: World,
    orders: Orders,
    reports: Reports,
) -> None:
    """Load this rank's share of the target and compute with it until rank 0 says that all is done, then report.

    Raises InputError as `setup.prepare` does, RankError where another rank is gone, the first error of any task, and
    DismissedError.
    """
    case, decision, arch = plan.case, plan.decision, target.architecture
    stage = stage_of(plan, world)
    check_model(case.target, target, "target")
    ledger = ledger_of(plan, stage)
    homes, rings = stores(plan, stage, target, devices, link, reader, ledger, ways)
    arrivals = Arrivals(stage, decision, case.machine.main)
    context = Context(
        stage,
        arch,
        ways.numerics,
        devices,
        homes,
        rings,
        link,
        torch.empty(0),
        arrivals.open_pass,
        _commit,
        arrivals.live,
        ledger.enter,
        decision.policy.chunk_tokens,
        staging(plan, stage, target, devices, ledger),
    )
    lowering = Lowering(plan, engine, context, None, arrivals.placements)
    reports.say(Report(Kind.READY))
    while not isinstance(order := _next(orders, engine), End):
        match order:
            case Room(places):
                arrivals.arena = room(decision, stage.layers, arch, places, devices, ledger)
            case Prefill(first_sweep, lengths):
                lowering.prefill(decision, lengths, first_sweep)
            case Round(number, shape):
                lowering.round(decision, number, shape)
    engine.drain()
    reports.say(Report(Kind.DONE, share=Share.of(engine, ledger)), last=True)


def _next(orders: Orders, engine: Engine) -> Order:
    ticked = time.monotonic()
    while True:
        ticked = engine.check(ticked)
        order = orders.next(_TICK_S)
        if order is not None:
            return order


def _commit(name: TaskName, p: Pass) -> None:
    raise AssertionError(f"{name}: passes are decided on rank 0")
