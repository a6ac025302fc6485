"""A whole job as one timeline on a machine of choice: what a run there would have measured, were the model right."""

from __future__ import annotations

from specsim.answer import Plan
from specsim.hardware import Machine
from specsim.schedule.lower import append_prefill, append_round, builder
from specsim.schedule.round import RoundShape, RoundState
from specsim.simulator.job import simulate_job
from specsim.simulator.pricing import simulate
from specsim.timeline import Timeline
from specsim.workload import prompt_lengths


def job_timeline(plan: Plan, machine: Machine) -> Timeline:
    """The rounds of the plan's own simulated job (one wave), lowered into one graph and priced on `machine`."""
    case, decision = plan.case, plan.decision
    b = builder(decision)
    ends = append_prefill(b, case, decision, prompt_lengths(case.workload).tolist(), ())
    state = RoundState.after(ends, decision)
    for number, one in enumerate(simulate_job(case, decision).rounds):
        append_round(b, case, decision, RoundShape(float(one.rows), one.context), number, state)
    return simulate(b.graph(), machine)
