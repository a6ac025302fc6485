"""A plan whose caches may take less than it meant them to: what is still in flight, and how fast that is."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec

from specsim.answer import Plan
from specsim.decision import Decision
from specsim.errors import InfeasibleError
from specsim.memory import capped_positions, peak_items, shortfall
from specsim.planner.predict import predict
from specsim.units import show


def cap_caches(plan: Plan, byte_count: float) -> Plan:
    """The same decision with at most so many bytes for the caches of all sequences, the draft's with the target's; what
    is predicted is predicted anew. Prompts that are read again bring what followed them, so where memory is short for
    that, sweeps take fewer at a time. Raises InputError where the longest request would not fit, InfeasibleError where
    a sweep of one is too much."""
    policy = plan.decision.policy
    kept = policy.draft is not None and policy.draft.kv != "none"
    positions = capped_positions(plan.case, byte_count, draft=kept)
    decision = _with(plan.decision, kv_positions=positions)
    while short := shortfall(plan.case.machine.budgets(), peak_items(plan.case, decision)):
        if decision.policy.prefill_batch == 1:
            phase, memory, missing = short
            what = f"with caches of {show(byte_count, 'bytes')} the plan lacks {show(missing, 'bytes')} of {memory}"
            raise InfeasibleError(f"{what} in {phase}, as prompts may have to be read again; plan anew with --kv")
        sweep = math.ceil(decision.policy.prefill_batch / 2)
        cuts = min(sweep, decision.policy.prefill_micro_batches)
        decision = _with(decision, prefill_batch=sweep, prefill_micro_batches=cuts)
    predicted = predict(plan.case, decision, plan.predicted.bound_tokens_per_second)
    return replace(plan, decision=decision, predicted=predicted)


def _with(decision: Decision, **policy: int) -> Decision:
    return msgspec.structs.replace(decision, policy=msgspec.structs.replace(decision.policy, **policy))
