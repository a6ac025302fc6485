"""Why a plan is as fast as it is: its bottleneck, what each resource and acceptance are worth, when speculation pays.

Every figure is a plan made anew for the changed question, so a sentence about a bottleneck is checked as it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from specsim.acceptance import Acceptance
from specsim.answer import Plan
from specsim.case import Case
from specsim.planner.anew import accepting, plan_anew, policy_of, rate_of
from specsim.planner.candidates import Candidate, Fixed
from specsim.planner.infeasible import explain_infeasible
from specsim.planner.plan import upgrades_of
from specsim.planner.search import Progress

#: break-even acceptance is found to within 1 / 2^STEPS
STEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """A change of the question, and the re-planned throughput against the plan's (`gain` 0.5: half as fast again)."""

    change: str
    tokens_per_second: float
    gain: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """`break_even` is the acceptance at which speculation starts to pay: None if it never does (or nothing drafts),
    0 if it always does."""

    sentence: str
    base_tokens_per_second: float
    sensitivities: tuple[Sensitivity, ...]
    break_even: float | None
    plain_tokens_per_second: float

    def to_frame(self) -> Any:
        """The sensitivities as a pandas DataFrame."""
        import pandas as pd  # only here: importing pandas takes longer than explaining

        return pd.DataFrame([{n: getattr(s, n) for n in Sensitivity.__slots__} for s in self.sensitivities])


def explain_plan(plan: Plan, progress: Progress | None = None) -> Explanation:
    """Re-plan the plan's case with every resource doubled, with other acceptances, and without speculation."""
    case = plan.case
    kept = policy_of(plan.decision)
    base = _best(case, kept, progress, "this machine")
    if base == 0:
        raise explain_infeasible(case, Fixed())
    found = []
    for name, resources in upgrades_of(case.machine):
        better = case.on(case.machine.scaled(**dict.fromkeys(resources, 2.0)))
        rate = _best(better, kept, progress, f"2x {name}")
        found.append(Sensitivity(f"2x {name}", rate, rate / base - 1))
    found.sort(key=lambda s: -s.gain)
    shifts, break_even = [], None
    plain = _best(case.plain(), kept, progress, "no speculation")
    if case.acceptance is not None:
        for shift in (-0.1, 0.1):
            moved = replace(case, acceptance=shifted(case.acceptance, shift))
            rate = _best(moved, kept, progress, f"acceptance {shift:+g}")
            shifts.append(Sensitivity(f"acceptance {shift:+g}", rate, rate / base - 1))
        break_even = _break_even(case, kept, plain, progress)
    sentence = _sentence(plan, found, break_even)
    return Explanation(sentence, base, (*found, *shifts), break_even, plain)


def shifted(acceptance: Acceptance, shift: float) -> Acceptance:
    """Every position's acceptance moved by `shift`, within 0..1."""
    return replace(acceptance, hazards=tuple(min(1.0, max(0.0, p + shift)) for p in acceptance.hazards))


def _sentence(plan: Plan, found: list[Sensitivity], break_even: float | None) -> str:
    first = f"{plan.predicted.bottleneck}: " + ", ".join(f"{s.change} gives {s.gain:+.0%}" for s in found[:3])
    if plan.case.acceptance is None:
        return first + "."
    if break_even is None:
        return first + "; speculation does not pay here at any acceptance."
    return first + f"; speculation pays from an acceptance of {break_even:.2f}."


def _break_even(case: Case, kept: Candidate, plain: float, progress: Progress | None) -> float | None:
    """Bisect a constant acceptance for where the best speculative plan overtakes the best plain one."""

    def pays(alpha: float) -> bool:
        what = f"speculation at acceptance {alpha:.2f}"
        return _best(accepting(case, alpha), kept, progress, what, speculate=True) > plain

    if not pays(1.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    return 0.0 if low == 0.0 else high


def _best(case: Case, kept: Candidate, progress: Progress | None, what: str, *, speculate: bool = False) -> float:
    if progress is not None:
        progress(f"re-planning for {what}")
    return rate_of(plan_anew(case, kept, speculate=speculate))
