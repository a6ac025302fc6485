"""No plan fits: which memory is short, in which phase, by how much, and the cheapest changes that fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from specsim.case import Case
from specsim.errors import InfeasibleError
from specsim.planner.candidates import Candidate, Fixed, least_demanding
from specsim.planner.evaluate import Evaluator
from specsim.planner.layouts import layouts
from specsim.planner.placement import shortage
from specsim.units import GiB, MiB, TiB, show

#: memory -> the field of a machine that says how much of it a plan may use
BUDGETS: Final = {"vram": "vram_budget_bytes", "ram": "ram_budget_bytes"}


def explain_infeasible(case: Case, fixed: Fixed) -> InfeasibleError:
    """The error for a case of which no candidate fits: what is short, and what would fit."""
    what, missing = shortest(case, fixed)
    fits = list(_changes(case, fixed, missing))
    return InfeasibleError(
        f"{what}; what fits: {', or '.join(fits) if fits else 'a larger machine or a smaller target'}"
    )


def shortest(case: Case, fixed: Fixed) -> tuple[str, Mapping[tuple[str, str], float]]:
    """What is missing where no candidate fits, as the least demanding one shows: in words, and the bytes by phase and
    memory."""
    evaluator = Evaluator(case, fixed)
    tried = [(shortage(evaluator.problem(c)).missing, c) for c in least_anywhere(case, fixed)]
    missing, least = min(tried, key=lambda pair: sum(pair[0].values()))
    if not missing:
        return f"no plan fits what is fixed, though no memory is short (with {least.label})", missing
    (phase, memory), size = max(missing.items(), key=lambda item: item[1])
    return f"no plan fits: {memory} is short by {show(size, 'bytes')} in {phase} (with {least.label})", missing


def _changes(case: Case, fixed: Fixed, missing: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """Changes that were tried and fit, cheapest first."""
    if fixed.batch is not None and fixed.batch > 1:
        smaller = [n for n in (256, 128, 64, 32, 16, 8, 4, 2, 1) if n < fixed.batch]
        fit = next((n for n in smaller if fits(case, replace(fixed, batch=n))), None)
        if fit is not None:
            yield f"a batch of {fit}"
    names = ("ring_slots", "attention", "kv", "placement", "draft_kv", "draft_batch", "expert_fetch", "strategy")
    for name in names:
        if getattr(fixed, name) is not None and fits(case, replace(fixed, **{name: None})):
            yield f"{name} left to the planner"
    if (
        case.acceptance is not None
        and fixed.gamma
        and fits(case.plain(), replace(fixed, gamma=0, draft_kv=None, draft_batch=None))
    ):
        yield "no draft"
    short: dict[str, float] = {}
    for (_, memory), size in missing.items():
        if memory in BUDGETS:
            short[memory] = max(short.get(memory, 0.0), size)
    for extra in (1.0, 1.05, 1.1, 1.5, 2.0, 3.0):  # with more memory, micro-batches are larger
        budgets = {m: _shown(case.machine.budgets()[m] + max(extra * size, MiB)) for m, size in short.items()}
        larger = replace(case.machine, **{BUDGETS[m]: budget for m, budget in budgets.items()})  # type: ignore[arg-type]
        if budgets and fits(case.on(larger), fixed):
            has = case.machine.budgets()
            yield " and ".join(
                f"{show(b, 'bytes')} of {m} for the plan (now {show(has[m], 'bytes')})" for m, b in budgets.items()
            )
            return


def _shown(size: float) -> float:
    """`size` rounded up to three digits of its unit: what is tried is what `show` prints."""
    unit = next(u for u in (TiB, GiB, MiB) if size >= u or u == MiB)
    step = unit * 10.0 ** (math.floor(math.log10(size / unit)) - 2)
    return math.ceil(size / step) * step


def fits(case: Case, fixed: Fixed) -> bool:
    """Whether any of the least demanding candidates fits."""
    evaluator = Evaluator(case, fixed)
    return any(evaluator.place(c) is not None for c in least_anywhere(case, fixed))


def least_anywhere(case: Case, fixed: Fixed) -> Iterator[Candidate]:
    """The least demanding candidates on every number of devices."""
    for on in layouts(case, fixed):
        yield from least_demanding(case, on)
