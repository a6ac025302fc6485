"""What a memory curve says: its knee, how far down speculation pays, what keeps its gain, what each step gives up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

from specsim.memory import peak_items
from specsim.planner.anew import rate_of
from specsim.planner.search import Found
from specsim.units import show
from specsim.whatif.budget import MemoryCurve, Point, generating_bytes, largest

#: a change of an item by less than this share of the budget is none
NOTHING: Final = 1e-4
#: what items that hold the same are called in RAM
SAME: Final = {"pinned weights": "weights", "pageable weights": "weights"}

Held = dict[str, dict[str, tuple[float, str]]]


@dataclass(frozen=True, slots=True)
class Change:
    """What an item of the fast memory loses from a point to the next smaller budget, in the phase in which it was
    largest; less than nothing where it grows. `moved_bytes` of them are in RAM then."""

    item: str
    bytes: float
    phase: str
    moved_bytes: float = 0.0

    @property
    def moved(self) -> bool:
        """Whether it is all held still, but in RAM."""
        return 0 < self.bytes <= self.moved_bytes * (1 + NOTHING)


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
    """The smallest budget at which speculation pays; None where it pays at none."""
    return next((point for point in reversed(curve.points) if point.pays), None)


def keeps(curve: MemoryCurve) -> Point | None:
    """The smallest budget at which plans that speculate keep their share of the speed-up that they have, in all the
    memory, over any one plan: so that share of their throughput. None where none speculates."""
    whole = rate_of(curve.points[0].speculative)
    return next((p for p in reversed(curve.points) if rate_of(p.speculative) >= curve.keep * whole > 0), None)


def generation_cut(curve: MemoryCurve) -> float | None:
    """The share of the fast memory for generation that the budget that `keeps` the speed-up does without. What it does
    without there may have moved: see `generation_change`."""
    whole = curve.points[0].speculative
    change = generation_change(curve)
    if change is None or whole is None:
        return None
    return -change[curve.memory] / generating_bytes(curve.case, whole.decision, curve.memory)


def generation_change(curve: MemoryCurve) -> dict[str, float] | None:
    """Bytes that generation takes more of each memory in the budget that `keeps` the speed-up than in all of it; less
    than nothing where it takes fewer."""
    small, whole = keeps(curve), curve.points[0].speculative
    if small is None or small.speculative is None or whole is None:
        return None
    left, had = (
        {memory: generating_bytes(curve.case, f.decision, memory) for memory in _held(curve, f)}
        for f in (small.speculative, whole)
    )
    return {memory: size - had[memory] for memory, size in left.items()}


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
    held_above, held_below = (_held(curve, f) for f in (above.speculative, below.speculative))
    gained = _by_kind(held_below, curve.memory)
    for item, size in _by_kind(held_above, curve.memory).items():
        gained[item] = gained.get(item, 0.0) - size
    more, less = held_above[curve.memory], held_below[curve.memory]
    changes = []
    for item in more | less:
        size, phase = more.get(item, (0.0, less.get(item, (0.0, ""))[1]))
        lost = size - less.get(item, (0.0, ""))[0]
        if abs(lost) > NOTHING * above.budget_bytes:
            changes.append(Change(item, lost, phase, max(0.0, min(lost, gained.get(item, 0.0)))))
    return tuple(sorted(changes, key=lambda change: -change.bytes))


def _held(curve: MemoryCurve, found: Found) -> Held:
    """Each memory's items at their largest, and in which phase that is."""
    peaks = peak_items(curve.case, found.decision)
    memories = next(iter(peaks.values()))
    return {memory: largest((phase, peaks[phase][memory]) for phase in peaks) for memory in memories}


def _by_kind(held: Held, fast: str) -> dict[str, float]:
    """Bytes of each item outside the fast memory, by what it is called there."""
    sizes: dict[str, float] = {}
    for items in (items for memory, items in held.items() if memory != fast):
        for item, (size, _) in items.items():
            sizes[SAME.get(item, item)] = sizes.get(SAME.get(item, item), 0.0) + size
    return sizes


def sentence(curve: MemoryCurve) -> str:
    """What a person takes home."""
    name = curve.memory.upper()
    whole, least, small, bend = curve.points[0], pays_from(curve), keeps(curve), knee(curve)
    told = []
    if whole.speedup is not None and whole.speculative is not None:
        speed = f"{whole.speedup:.2f} times as fast as without"
        told.append(f"In {show(whole.budget_bytes, 'bytes')} of {name} speculation is {speed}")
    pays = whole.speculative is not None and whole.pays
    told.append("it pays at no budget" if least is None else _pays_in(curve, least, "still " if pays else ""))
    if small is not None and pays:
        told.append(
            f"{show(small.budget_bytes, 'bytes')} keeps {curve.keep * 100:g}% of its speed-up{_with_less(curve)}"
        )
    if bend is not None:
        told.append(f"the knee is at {show(bend.budget_bytes, 'bytes')}")
    return "; ".join(told) + "."


def _pays_in(curve: MemoryCurve, least: Point, still: str) -> str:
    """Down to the smallest budget, and where it does not between."""
    between = curve.points[: curve.points.index(least)]
    gaps = [list(points) for pays, points in groupby(between, key=lambda point: point.pays) if not pays]
    told = f"it {still}pays in {show(least.budget_bytes, 'bytes')}"
    if not gaps:
        return told
    spans = (list(dict.fromkeys(show(p.budget_bytes, "bytes") for p in (gap[0], gap[-1]))) for gap in gaps)
    return f"{told}, but not {' nor '.join(_span(span) for span in spans)}"


def _span(ends: list[str]) -> str:
    return f"in {ends[0]}" if len(ends) == 1 else f"from {ends[0]} to {ends[1]}"


def _with_less(curve: MemoryCurve) -> str:
    """How much less of the fast memory serves to generate, and what the RAM gains beside it."""
    cut, change = generation_cut(curve), generation_change(curve)
    if cut is None or change is None or cut <= 0:
        return ""
    told = f", with {cut:.0%} less {curve.memory.upper()} for generation"
    beside = sum(size for memory, size in change.items() if memory != curve.memory)
    if beside > 0:
        told += f" ({show(-change[curve.memory], 'bytes')} less, and {show(beside, 'bytes')} more of RAM)"
    return told
