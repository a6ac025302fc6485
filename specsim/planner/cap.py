"""A plan whose caches may take less than it meant them to: what is still in flight, and how fast that is."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from specsim.answer import Plan
from specsim.memory import capped_positions
from specsim.planner.predict import predict


def cap_caches(plan: Plan, byte_count: float) -> Plan:
    """The same decision with at most so many bytes for the caches of all sequences, the draft's with the target's; what
    is predicted is predicted anew. Raises InputError where the longest request would not fit."""
    policy = plan.decision.policy
    kept = policy.draft is not None and policy.draft.kv != "none"
    positions = capped_positions(plan.case, byte_count, draft=kept)
    capped = msgspec.structs.replace(policy, kv_positions=positions)
    decision = msgspec.structs.replace(plan.decision, policy=capped)
    predicted = predict(plan.case, decision, plan.predicted.bound_tokens_per_second)
    return replace(plan, decision=decision, predicted=predicted)
