"""Plans whose caches are capped afterwards."""

from __future__ import annotations

import pytest

from specsim.errors import InputError
from specsim.memory import kv_layer_bytes, peak_items, shortfall
from specsim.planner.cap import cap_caches
from tests.specsim import plans


def test_caches_take_what_is_allowed_and_the_plan_is_predicted_anew() -> None:
    plan = plans.plan()
    case, policy = plan.case, plan.decision.policy
    assert policy.draft is not None
    models = (case.target, case.draft) if policy.draft.kv != "none" else (case.target,)
    each = sum(model.layers * model.kv_bytes_per_token_layer for model in models if model is not None)
    longest = case.workload.prompt_tokens_max + case.workload.output_tokens
    capped = cap_caches(plan, longest * each)
    assert capped.decision.policy.kv_positions == longest
    assert kv_layer_bytes(case, capped.decision.policy) < kv_layer_bytes(case, policy)
    assert capped.predicted.tokens_per_second < plan.predicted.tokens_per_second
    assert shortfall(case.machine.budgets(), peak_items(case, capped.decision)) is None
    with pytest.raises(InputError, match=f"hold {longest - 1} positions, and a request may need {longest}; give at"):
        cap_caches(plan, longest * each - 1)
