"""What a memory curve says: its knee, how far down speculation pays, what keeps its gain, what each step gives up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from specsim.memory import peak_items
from specsim.planner.anew import rate_of
from specsim.units import show
from specsim.whatif.budget import MemoryCurve, Point, generating_bytes, largest

#: a change of an item by less than this share of the budget is none
NOTHING: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Change:
    """What an item of the fast memory loses from a point to the next smaller budget, in the phase in which it was
    largest; less than nothing where it grows."""

    item: str
    bytes: float
    phase: str


def knee(curve: MemoryCurve) -> Point | None:
    """Where less memory begins to cost more than its share: the point of the best plans' throughput furthest above
    the straight line between the curve's ends (Satopää et al. 2011, "Finding a Kneedle in a Haystack"); None where
    none is above it."""
    first, last = curve.points[0], curve.points[-1]
    budgets = first.budget_bytes - last.budget_bytes or 1.0
    rates = rate_of(first.best) - rate_of(last.best) or 1.0

    def above(point: Point) -> float:
        rise = (rate_of(point.best) - rate_of(last.best)) / rates
        return rise - (point.budget_bytes - last.budget_bytes) / budgets

    bend = max(curve.points, key=above)
    return bend if above(bend) > 0 else None


def pays_from(curve: MemoryCurve) -> Point | None:
    """The smallest budget at which speculation still pays; None where it pays at none."""
    return next((point for point in reversed(curve.points) if point.pays), None)


def keeps(curve: MemoryCurve) -> Point | None:
    """The smallest budget at which plans that speculate keep their share of the speed-up that they have, in all the
    memory, over any one plan: so that share of their throughput. None where none speculates."""
    whole = rate_of(curve.points[0].speculative)
    return next((p for p in reversed(curve.points) if rate_of(p.speculative) >= curve.keep * whole > 0), None)


def generation_cut(curve: MemoryCurve) -> float | None:
    """The share of the memory for generation that the budget that `keeps` the speed-up does without."""
    small, whole = keeps(curve), curve.points[0].speculative
    if small is None or small.speculative is None or whole is None:
        return None
    left, had = (generating_bytes(curve.case, f.decision, curve.memory) for f in (small.speculative, whole))
    return 1 - left / had


def given_up(curve: MemoryCurve) -> list[tuple[Change, ...]]:
    """For each point what it gives up against the one before it, the most first; nothing for the first, and where
    there is no plan that speculates."""
    steps: list[tuple[Change, ...]] = [()]
    for above, below in pairwise(curve.points):
        steps.append(_changes(curve, above, below))
    return steps


def _changes(curve: MemoryCurve, above: Point, below: Point) -> tuple[Change, ...]:
    if above.speculative is None or below.speculative is None:
        return ()
    more, less = (
        largest((phase, memories[curve.memory]) for phase, memories in peak_items(curve.case, f.decision).items())
        for f in (above.speculative, below.speculative)
    )
    changes = []
    for item in more | less:
        size, phase = more.get(item, (0.0, less.get(item, (0.0, ""))[1]))
        lost = size - less.get(item, (0.0, ""))[0]
        if abs(lost) > NOTHING * above.budget_bytes:
            changes.append(Change(item, lost, phase))
    return tuple(sorted(changes, key=lambda change: -change.bytes))


def sentence(curve: MemoryCurve) -> str:
    """What a person takes home."""
    name = curve.memory.upper()
    whole, least, small, bend = curve.points[0], pays_from(curve), keeps(curve), knee(curve)
    told = []
    if whole.speedup is not None and whole.speculative is not None:
        speed = f"{whole.speedup:.2f} times as fast as without"
        told.append(f"In {show(whole.budget_bytes, 'bytes')} of {name} speculation is {speed}")
    told.append("it pays at no budget" if least is None else f"it still pays in {show(least.budget_bytes, 'bytes')}")
    cut = generation_cut(curve)
    if small is not None and cut is not None:
        kept = f"{show(small.budget_bytes, 'bytes')} keeps {curve.keep:.0%} of its speed-up"
        told.append(f"{kept}, with {cut:.0%} less memory for generation" if cut > 0 else kept)
    if bend is not None:
        told.append(f"the knee is at {show(bend.budget_bytes, 'bytes')}")
    return "; ".join(told) + "."
