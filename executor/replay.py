"""The prediction for what a run really did: the rounds as they turned out, lowered again and simulated.

A plan predicts acceptance and lengths too. Here these are as measured, so what is left is the error of the cost model,
task by task: both timelines have the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from executor.engine import MOST_SPANS
from executor.job import Wave
from specsim.answer import Plan
from specsim.hardware import IN_TURN
from specsim.schedule.graph import Graph
from specsim.schedule.lower import append_prefill, append_round, builder
from specsim.schedule.round import RoundState
from specsim.simulator.pricing import simulate
from specsim.timeline.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Replay:
    """The `seconds` of all that was done, and the `timeline` of as much of it as an engine remembers."""

    seconds: float
    timeline: Timeline


def replay(plan: Plan, waves: Sequence[Wave], *, in_turn: bool, tasks: int = MOST_SPANS) -> Replay:
    """What the cost model gives for the waves of a run, whose streams took turns on each processor or not (see
    executor.devices.worker_for). A long run is simulated in pieces of about so many tasks, each of which begins where
    nothing is under way, so that it takes no more memory than a short one."""
    pools = IN_TURN if in_turn else ()
    seconds, first = 0.0, None
    for piece in _pieces(plan, waves, tasks):
        timeline = simulate(piece, plan.case.machine, pools)
        seconds += timeline.makespan
        first = first or timeline
    return Replay(seconds, first or Timeline((), ()))


def _pieces(plan: Plan, waves: Sequence[Wave], tasks: int) -> Iterator[Graph]:
    case, b = plan.case, builder(plan.decision)
    ends: tuple[int, ...] = ()
    slots = plan.decision.policy.ring_slots
    for wave in waves:
        decision = wave.decision
        if decision.policy.ring_slots != slots:
            slots = decision.policy.ring_slots
            b.resize_rings(slots)
        ends = append_prefill(b, case, decision, wave.lengths, ends, wave.first_sweep, wave.others)
        state = RoundState.after(ends, decision)
        for number, shape in sorted(wave.shapes.items()):
            if len(b.tasks) >= tasks:
                yield b.graph()
                b, ends = builder(decision), ()
                state = RoundState.after(ends, decision)
            append_round(b, case, decision, shape, number, state)
            ends = b.round_ends[-1]
    if b.tasks:
        yield b.graph()
