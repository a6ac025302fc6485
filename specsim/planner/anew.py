"""Plan again for changed questions: quickly from the winners of the first, or by a search of each its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.decision import Decision
from specsim.planner.candidates import Candidate, Fixed
from specsim.planner.replan import Carried, carry, replan
from specsim.planner.search import Found, Progress, Search

#: placements and simulations of each search: enough to follow a change, a third of a plan's own search
REPLAN: Final = (45, 6)


def policy_of(decision: Decision) -> Candidate:
    """The policy of a decision, its placement and its draft's left open."""
    return Candidate(decision.strategy, msgspec.structs.replace(decision.policy, draft=None))


@dataclass(frozen=True, slots=True)
class Start:
    """The first question, its best plan (None where nothing fits), and what its search leaves to questions like it."""

    case: Case
    found: Found | None
    carried: Carried


def start(case: Case, progress: Progress | None = None) -> Start:
    """Search for the plan that others are compared with, and for the best of every other kind."""
    placements, simulations = REPLAN
    result = Search(case, Fixed(), progress, placements, simulations).run()
    return Start(case, result.found[0] if result.found else None, carry(case, Fixed(), result))


def follow(first: Start, case: Case, *, speculate: bool = False, thorough: bool = False) -> Found | None:
    """The best plan for a changed question, or the best that speculates; None where nothing fits.

    Near the winners of the first, unless `thorough`, or where the question has a GPU or a draft that the first has not
    and so knows no winner for: then by `plan_anew`.
    """
    strange = (case.machine.gpu is None) != (first.case.machine.gpu is None)
    strange |= case.acceptance is not None and first.case.acceptance is None
    if thorough or strange:
        kept = policy_of(first.found.decision) if first.found is not None else None
        return plan_anew(case, kept, speculate=speculate)
    return replan(case, Fixed(), first.carried, speculate=speculate)


def plan_anew(case: Case, kept: Candidate | None = None, *, speculate: bool = False) -> Found | None:
    """The best plan that a search with smaller limits finds, that with the policy `kept` among them, or the best that
    speculates; None where nothing fits."""
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
