"""Plan again for changed questions: quickly from the winners of the first, or by a search of each its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.decision import Decision
from specsim.planner.candidates import Candidate, Fixed, like
from specsim.planner.evaluate import Evaluator
from specsim.planner.layouts import search_all
from specsim.planner.replan import ENDS, REPLAN, Carried, carry, replan, together
from specsim.planner.search import Found, Progress


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
    result = search_all(case, Fixed(), progress, placements, simulations)
    return Start(case, result.found[0] if result.found else None, carry(case, Fixed(), result))


def start_at_any_acceptance(case: Case, progress: Progress | None = None) -> Start:
    """The same where acceptance is what changes: what is left does not depend on that of `case`."""
    starts = [start(accepting(case, alpha), progress) for alpha in ENDS]
    best = max((s.found for s in starts), key=rate_of)
    return Start(case, best, together([s.carried for s in starts]))


def follow(first: Start, case: Case, *, speculate: bool = False, thorough: bool = False) -> Found | None:
    """The best plan for a changed question, or the best that speculates; None where nothing fits.

    Near the winners of the first. If `thorough`, by `plan_anew` too; by that alone where the question has a GPU or a
    draft that the first has not and so knows no winner for.
    """
    strange = (case.machine.gpu is None) != (first.case.machine.gpu is None)
    strange |= case.acceptance is not None and first.case.acceptance is None
    if thorough or strange:
        kept = policy_of(first.found.decision) if first.found is not None else None
        anew = plan_anew(case, kept, speculate=speculate)
        if strange:
            return anew
        return max(anew, replan(case, Fixed(), first.carried, speculate=speculate), key=rate_of)
    return replan(case, Fixed(), first.carried, speculate=speculate)


def plan_anew(case: Case, kept: Candidate | None = None, *, speculate: bool = False) -> Found | None:
    """The best plan that a search with smaller limits finds, that with the policy `kept` among them, or the best that
    speculates; None where nothing fits. Of several devices those are used that `kept` uses, in the same stages."""
    placements, simulations = REPLAN
    able = kept is not None and kept.policy.devices <= case.machine.devices
    fixed = like(Fixed(), kept) if kept is not None and able and case.machine.devices > 1 else Fixed()
    result = search_all(case, fixed, None, placements, simulations, speculate=speculate, survey=False)
    found = list(result.found)
    if kept is not None and able and (case.acceptance is not None if kept.policy.gamma else not speculate):
        evaluator = Evaluator(case, Fixed())
        placed = evaluator.place(kept)
        if placed is not None:
            decision = evaluator.with_tails(placed.decision)
            found.append(Found(kept, decision, evaluator.simulate(decision)))
    return max(found, key=lambda f: f.tokens_per_second, default=None)


def unchanged(case: Case, found: Found) -> Found:
    """A plan as it is, for a question that differs in acceptance only."""
    return Found(found.candidate, found.decision, Evaluator(case, Fixed()).simulate(found.decision))


def rate_of(found: Found | None) -> float:
    """Useful tokens per second; 0 where nothing fits."""
    return found.tokens_per_second if found is not None else 0.0


def accepting(case: Case, alpha: float) -> Case:
    """The same question where every drafted token is accepted with the chance `alpha`."""
    return replace(case, acceptance=Acceptance.constant(alpha, "assumed", "what-if"))
