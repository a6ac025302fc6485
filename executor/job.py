"""The whole job: waves of requests, each prefilled in sweeps and decoded round by round, lowered as it goes.

The schedule of round n + 1 is lowered when round n begins, before anybody knows who will still be there: so the ring
fills with the next round's first weights while this one ends. What turns out to have nothing left to do, does nothing.

A wave that runs out of memory is broken off, and those who were in flight make up the next one, with less at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from executor.engine import Engine
from executor.floor import Floor
from executor.lowering import Lowering
from executor.memory import Ledger
from executor.ranks.messages import Prefill, Round
from executor.requests import Request
from executor.shrink import is_out_of_memory, smaller
from executor.tasks.abandon import abandon
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext
from specsim.answer import Plan
from specsim.decision import Decision
from specsim.schedule.lower import NEXT_WAVE
from specsim.schedule.round import RoundShape
from specsim.schedule.sweeps import sweeps

#: tasks that run when another has run out of memory are waited for so long, before all goes on without them
ENDING_S: Final = 60.0


@dataclass(slots=True, eq=False)
class Wave:
    """What was done for one wave: the lengths of what it prefilled and of `others`, which it took over from
    one that was broken off, and the shapes of its rounds by number as they turned out. Enough to lower it once more."""

    decision: Decision
    lengths: list[int]
    others: list[int]
    first_sweep: int
    shapes: dict[int, RoundShape]


class Job:
    """Drives an engine through a plan: lowers, submits, waits. What tasks do, they do with `context` and `drafts`.
    Other ranks, where there are any, are told what is lowered."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        floor: Floor,
        ledger: Ledger,
        context: Context,
        drafts: DraftContext | None,
    ) -> None:
        self.plan, self.decision, self.engine = plan, plan.decision, engine
        self.floor, self.batches, self.ledger = floor, floor.batches, ledger
        self.context, self.drafts = context, drafts
        self.announce = context.stage.announce
        self.lowering = Lowering(plan, engine, context, drafts, floor.placements)
        self.waves: list[Wave] = []
        self.shrunk: list[str] = []  # what was made smaller after out of memory, and when
        self.phase = "load"
        self.rounds = self.sweeps = 0
        self.seconds = {"prefill": 0.0, "decode": 0.0}  # that were spent in each

    def run(
        self,
        requests: Iterable[Request],
        on_tick: Callable[[], None] = lambda: None,
        on_shrink: Callable[[str], None] = lambda what: None,
    ) -> None:
        """Serve all requests; `on_tick` is called a few times a second meanwhile, and when all is done, `on_shrink`
        when a wave ran out of memory and goes on with less at once.

        Raises InputError where there is no room for their caches, and the first error of any task: out of memory only
        where nothing can be made smaller.
        """
        self.batches.receive(requests)
        self.serve(on_tick, on_shrink)
        if self.batches.in_flight or self.batches.served != self.batches.done:
            raise RuntimeError(f"{self.batches.done} of {self.batches.served} requests have ended")

    def serve(
        self, on_tick: Callable[[], None] = lambda: None, on_shrink: Callable[[str], None] = lambda what: None
    ) -> None:
        """Serve all who wait, or join meanwhile; as `run` does."""
        while self.batches.paused or self.batches.waiting:
            try:
                self._wave(on_tick)
            except (MemoryError, OSError, RuntimeError) as error:
                alone = self.decision.policy.stages == 1  # other ranks have begun what they were told
                found = smaller(self.decision, self.phase) if alone and is_out_of_memory(error) else None
                if found is None or not self.engine.stop(ENDING_S):
                    raise
                told = f"out of memory in {self.phase}: going on with {found.what}"
            else:
                continue
            # Only here, where the error is gone, and with it the tensors that its frames held.
            with self._spend(self.phase):
                self._shrink(found.decision)
            self.shrunk.append(told)
            on_shrink(told)

    def _shrink(self, decision: Decision) -> None:
        """Drop the wave, of which no task runs any more, but for what its sequences have committed."""
        old, self.decision = self.decision.policy, decision
        policy = decision.policy
        self.lowering.submit()  # what was only lowered: the engine numbers tasks as the graph does, and drops these too
        self.engine.resume()
        abandon(self.context, self.drafts)
        self.floor.sweeps.clear()
        self.floor.placements.clear()
        self.batches.regroup(policy, self.batches.join_tokens * policy.batch / old.batch)
        if policy.ring_slots != old.ring_slots:
            self.context.rings.allocate(self.ledger, policy.ring_slots)
            self.lowering.builder.resize_rings(policy.ring_slots)
        self.rounds += NEXT_WAVE

    def _wave(self, on_tick: Callable[[], None]) -> None:
        decision = self.decision
        sequences = self.batches.next_wave()
        if not sequences:  # who waited was cancelled
            return
        new = [s for s in sequences if s.fresh or s.restoring]
        others = [len(s.tokens) for s in sequences if s not in new]
        self.floor.shapes = {}
        wave = Wave(decision, [len(s.tokens) - s.cache.length for s in new], others, self.sweeps, self.floor.shapes)
        self.waves.append(wave)
        for number, sweep in enumerate(sweeps(self.plan.case, decision.policy, wave.lengths), self.sweeps):
            self.floor.sweeps[number] = new[sweep]
        self.sweeps += max(1, len(self.floor.sweeps))  # the transition has a number, even where nothing is swept
        with self._spend("prefill"):
            self.announce(Prefill(wave.first_sweep, tuple(wave.lengths)))
            ends = self.lowering.prefill(decision, wave.lengths, wave.first_sweep, others)
            this_round = self._lower_round()
            self.engine.wait(ends, on_tick)
        with self._spend("decode"):
            while self.batches.under_way:
                next_round = self._lower_round()
                self.engine.wait(this_round, on_tick)
                this_round = next_round
        self.engine.drain(on_tick)  # of what was lowered ahead: the next wave takes the same places
        self.rounds += NEXT_WAVE - 1

    @contextmanager
    def _spend(self, phase: str) -> Iterator[None]:
        """What happens within is of this phase, and its time too."""
        self.phase = phase
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - began

    def _lower_round(self) -> list[int]:
        """Lower one more round for those who are there now; returns the tasks that end it."""
        sequences, number = self.batches.in_flight, self.rounds
        self.rounds += 1
        rows = max(1, len(sequences))
        context = sum(len(s.tokens) - 1 for s in sequences) / rows
        refills = self.batches.waiting_to_refill
        joining = self.plan.case.workload.prompt_tokens_mean if refills else 0.0
        shape = RoundShape(float(rows), max(1.0, context), joining)
        self.announce(Round(number, shape))
        return self.lowering.round(self.decision, number, shape)
