"""What memory is worth: the best plans with and without speculation for an ever smaller fast memory.

Budgets fall by equal factors, from what the best plans take to the least that anything fits in. A plan for one budget
is one for every larger budget too, so no curve falls where memory grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from specsim.added import added_items, generation_bytes
from specsim.case import Case
from specsim.decision import Decision
from specsim.errors import InputError
from specsim.memory import Items, peak_items, totals
from specsim.planner.anew import Start, follow, rate_of, start
from specsim.planner.candidates import Fixed
from specsim.planner.infeasible import BUDGETS, explain_infeasible, fits
from specsim.planner.search import Found, Progress

POINTS: Final = 12
#: SpecMemo (arXiv 2506.01986) keeps 96 % of the throughput in 65 % less memory for generation
KEEP: Final = 0.96
#: budgets that matter are found to this share of themselves
CLOSE: Final = 0.02
#: the least budget that is looked at, as a share of what the best plans take
FLOOR: Final = 1 / 64


@dataclass(frozen=True, slots=True)
class Point:
    """The best plans of either kind for a budget of the fast memory; None where none fits."""

    budget_bytes: float
    plain: Found | None
    speculative: Found | None

    @property
    def speedup(self) -> float | None:
        """Of speculation, over the best plan without it in the same memory."""
        return rate_of(self.speculative) / self.plain.tokens_per_second if self.plain is not None else None

    @property
    def pays(self) -> bool:
        return rate_of(self.speculative) > rate_of(self.plain)

    @property
    def best(self) -> Found | None:
        return self.speculative if self.pays else self.plain


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """`points` by falling budgets of `memory`, the fast one. `keep` is the share of the speed-up to be kept."""

    case: Case
    memory: str
    keep: float
    points: tuple[Point, ...]

    def rows(self) -> list[dict[str, Any]]:
        """A row per point: the best plan that speculates, and what it takes."""
        return [_row(self, point) for point in self.points]

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd  # only here: importing pandas takes longer than planning

        return pd.DataFrame(self.rows())


def find_curve(
    case: Case, *, keep: float = KEEP, points: int = POINTS, progress: Progress | None = None
) -> MemoryCurve:
    """Plan anew for `points` budgets, and between them to find the smallest at which speculation pays, and the smallest
    that keeps the share `keep` of its speed-up in all the memory.

    Raises InputError where nothing drafts or for bad numbers, InfeasibleError where nothing fits.
    """
    _check(case, keep, points)
    first = start(case, progress)
    if first.found is None:
        raise explain_infeasible(case, Fixed())
    memory = case.machine.fast
    planned = _Planned(first, memory, progress)
    planned.add(case.machine.budgets()[memory])
    most = max(planned.taken)
    for budget in np.geomspace(most, _least(case, most), points):
        planned.add(float(budget))
    whole = rate_of(planned.points()[0].speculative)
    planned.narrow(lambda point: point.pays)
    planned.narrow(lambda point: rate_of(point.speculative) >= keep * whole > 0)
    return MemoryCurve(case, memory, keep, tuple(p for p in planned.points() if p.best is not None))


class _Planned:
    """All plans that were found so far, and the budgets that they were looked for at."""

    def __init__(self, first: Start, memory: str, progress: Progress | None) -> None:
        self.first, self.memory, self.say = first, memory, progress
        self.budgets: list[float] = []
        self.found: dict[bool, list[Found]] = {True: [], False: []}

    @property
    def taken(self) -> list[float]:
        """Peak bytes of each plan in the memory."""
        return [taken_bytes(self.first.case, f.decision, self.memory) for kind in self.found.values() for f in kind]

    def add(self, budget: float) -> None:
        """Plan for a budget too."""
        if self.say is not None:
            self.say(f"planning for {budget / 2**20:.4g} MiB of {self.memory}")
        asked = with_budget(self.first.case, self.memory, budget)
        for speculate, question in ((True, asked), (False, asked.plain())):
            found = follow(self.first, question, speculate=speculate)
            if found is not None:
                self.found[speculate].append(found)
        self.budgets.append(budget)

    def points(self) -> list[Point]:
        """By falling budgets, down from what the best plans take: at each the best of all plans that it holds."""
        most = max(self.taken)
        budgets = sorted({min(budget, most) for budget in self.budgets}, reverse=True)
        return [Point(budget, self._best(budget, False), self._best(budget, True)) for budget in budgets]

    def _best(self, budget: float, speculate: bool) -> Found | None:
        case, kind = self.first.case, self.found[speculate]
        able = (f for f in kind if taken_bytes(case, f.decision, self.memory) <= budget * (1 + 1e-9))
        return max(able, key=rate_of, default=None)

    def narrow(self, wanted: Callable[[Point], bool]) -> None:
        """Plan for budgets below the smallest whose point is `wanted`, until that is found closely."""
        while True:
            points = self.points()
            last = max((i for i, point in enumerate(points) if wanted(point)), default=None)
            if last is None or last + 1 == len(points):
                return
            above, below = points[last].budget_bytes, points[last + 1].budget_bytes
            if above <= below * (1 + CLOSE):
                return
            self.add((above * below) ** 0.5)


def with_budget(case: Case, memory: str, budget_bytes: float) -> Case:
    """The same question with another budget of `memory`, "vram" or "ram"."""
    return case.on(replace(case.machine, **{BUDGETS[memory]: budget_bytes}))  # type: ignore[arg-type]


def taken_bytes(case: Case, decision: Decision, memory: str) -> float:
    """Peak bytes of a memory over all phases."""
    return max(phase[memory] for phase in totals(peak_items(case, decision)).values())


def generating_bytes(case: Case, decision: Decision, memory: str) -> float:
    """Peak bytes of a memory over all phases, of what serves to generate."""
    return max(generation_bytes(phase[memory]) for phase in peak_items(case, decision).values())


def largest(phases: Iterable[tuple[str, Items]]) -> dict[str, tuple[float, str]]:
    """Each item's most bytes over the phases, and in which."""
    most: dict[str, tuple[float, str]] = {}
    for phase, items in phases:
        for item, size in items.items():
            if size > most.get(item, (0.0, ""))[0]:
                most[item] = size, phase
    return most


def _least(case: Case, most: float) -> float:
    """The least budget that anything fits in, or the floor, to within `CLOSE`."""
    memory = case.machine.fast
    below, above = most * FLOOR, most
    if fits(with_budget(case, memory, below), Fixed()):
        return below
    while above > below * (1 + CLOSE):
        middle = (above * below) ** 0.5
        if fits(with_budget(case, memory, middle), Fixed()):
            above = middle
        else:
            below = middle
    return above


def _row(curve: MemoryCurve, point: Point) -> dict[str, Any]:
    case, memory, found = curve.case, curve.memory, point.speculative
    row: dict[str, Any] = {"budget_bytes": point.budget_bytes, "plain_tokens_per_second": rate_of(point.plain)}
    row |= {"tokens_per_second": rate_of(found), "speedup": point.speedup}
    names = ("gamma", "batch", "in_flight", "prefill_batch", "ring_slots", "verify_micro_batches")
    policy = None if found is None else found.decision.policy
    row |= {"strategy": None if found is None else found.decision.strategy}
    row |= {name: None if policy is None else getattr(policy, name) for name in names}
    decision = None if found is None else found.decision
    row["generation_bytes"] = None if decision is None else generating_bytes(case, decision, memory)
    added = {} if decision is None else added_items(case, decision)
    row["added_bytes"] = max((sum(items[memory].values()) for items in added.values()), default=None)
    return row


def _check(case: Case, keep: float, points: int) -> None:
    if case.acceptance is None:
        raise InputError("nothing drafts", where="memory", hint="name a --draft, or ngram")
    if case.workload.output_tokens == 1:
        hint = "the prompt's own pass makes it; give more --output-tokens"
        raise InputError("there is nothing to draft for: every request wants one token", where="memory", hint=hint)
    if not 0 < keep <= 1:
        raise InputError(f"the share to keep is {keep:g}", where="--keep", hint="give more than 0, at most 1")
    if points < 2:
        raise InputError(f"{points} points make no curve", where="--points", hint="give 2 or more")
