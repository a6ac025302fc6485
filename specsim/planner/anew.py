"""Plan again for a changed question: the planner's own search with smaller limits, and the policy known to be good."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.decision import Decision
from specsim.planner.candidates import Candidate
from specsim.planner.search import Found, Search

#: placements and simulations of each re-plan: enough to follow a change, a third of a plan's own search
REPLAN: Final = (45, 6)


def policy_of(decision: Decision) -> Candidate:
    """The policy of a decision, its placement and its draft's left open."""
    return Candidate(decision.strategy, msgspec.structs.replace(decision.policy, draft=None))


def plan_anew(case: Case, kept: Candidate | None = None, *, speculate: bool = False) -> Found | None:
    """The best plan for `case`, that with the policy `kept` among them, or the best that speculates; None where
    nothing fits."""
    placements, simulations = REPLAN
    search = Search(case, placements=placements, simulations=simulations, speculate=speculate, survey=False)
    found = list(search.run().found)
    if kept is not None and (case.acceptance is not None if kept.policy.gamma else not speculate):
        placed = search.evaluator.place(kept)
        if placed is not None:
            decision = search.evaluator.with_tails(placed.decision)
            found.append(Found(kept, decision, search.evaluator.simulate(decision)))
    return max(found, key=lambda f: f.tokens_per_second, default=None)


def rate_of(found: Found | None) -> float:
    """Useful tokens per second; 0 where nothing fits."""
    return found.tokens_per_second if found is not None else 0.0


def accepting(case: Case, alpha: float) -> Case:
    """The same question where every drafted token is accepted with the chance `alpha`."""
    return replace(case, acceptance=Acceptance.constant(alpha, "assumed", "what-if"))
