"""The prediction for what a run really did: the rounds as they turned out, lowered again and simulated.

A plan predicts acceptance and lengths too. Here these are as measured, so what is left is the error of the cost model,
task by task: both timelines have the same names.
"""

from __future__ import annotations

from collections.abc import Sequence

from executor.job import Wave
from specsim.answer import Plan
from specsim.hardware import IN_TURN
from specsim.schedule.lower import append_prefill, append_round, builder
from specsim.schedule.round import RoundState
from specsim.simulator.pricing import simulate
from specsim.timeline.timeline import Timeline


def predicted_timeline(plan: Plan, waves: Sequence[Wave], *, in_turn: bool) -> Timeline:
    """The timeline that the cost model gives for the waves of a run, whose streams took turns on each processor or not
    (see executor.devices.worker_for)."""
    case = plan.case
    b = builder(plan.decision)
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
            append_round(b, case, decision, shape, number, state)
            ends = b.round_ends[-1]
    return simulate(b.graph(), case.machine, IN_TURN if in_turn else ())
