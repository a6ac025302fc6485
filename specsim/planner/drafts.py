"""Ways to run the draft, less those that another way beats in everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from specsim.case import Case
from specsim.decision import Policy
from specsim.memory import draft_items, totals
from specsim.planner.problem import DraftChoice


def undominated(case: Case, policy: Policy, choices: Sequence[DraftChoice]) -> list[DraftChoice]:
    """Choices that no other beats or equals in every load and every byte (of equals, the first stays)."""
    costs = [_costs(case, policy, choice) for choice in choices]
    names = sorted(set().union(*costs), key=str)
    table = np.array([[cost.get(name, 0.0) for name in names] for cost in costs])  # [choices, names]
    kept: list[int] = []
    for i in range(len(choices)):
        rivals = table[[*kept, *range(i + 1, len(choices))]]
        if not (rivals <= table[i]).all(axis=1).any():
            kept.append(i)
    return [choices[i] for i in kept]


def _costs(case: Case, policy: Policy, choice: DraftChoice) -> dict[Any, float]:
    costs: dict[Any, float] = {"chain": choice.drafting.chain, "transition": choice.transition.chain}
    costs |= {("drafting", name): seconds for name, seconds in choice.drafting.pools.items()}
    costs |= {("transition", name): seconds for name, seconds in choice.transition.pools.items()}
    for phase, memories in totals(draft_items(case, policy, choice.policy)).items():
        costs |= {(phase, memory): size for memory, size in memories.items()}
    return costs
