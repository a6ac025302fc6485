"""Break-even maps: from which acceptance speculation pays, by the rate at which weights come.

Each point compares the best plan that speculates with the best that does not, both made anew for that rate: that of the
link or of the disk, whichever the machine's best plan without speculation uses for longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from specsim.case import Case
from specsim.errors import InputError
from specsim.planner.anew import accepting, follow, rate_of, start_at_any_acceptance, unchanged
from specsim.planner.candidates import Fixed
from specsim.planner.infeasible import explain_infeasible
from specsim.planner.predict import round_timeline
from specsim.planner.search import Found, Progress
from specsim.timeline import utilisation

ACCEPTANCES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: rates, as multiples of this machine's own
MULTIPLES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
#: what weights come over
Over = Literal["link", "disk"]


@dataclass(frozen=True, slots=True)
class Point:
    """The best plans' useful tokens/s at a rate and an acceptance; 0 where none fits."""

    bytes_per_s: float
    acceptance: float
    plain: float
    speculative: float

    @property
    def ratio(self) -> float:
        return self.speculative / self.plain if self.plain else float("inf")


@dataclass(frozen=True, slots=True)
class BreakEvenMap:
    """`points` by rate, then by acceptance, both rising; `here` is this machine with its own acceptance."""

    case: Case
    over: Over
    points: tuple[Point, ...]
    here: Point

    @property
    def rates(self) -> list[float]:
        return list(dict.fromkeys(p.bytes_per_s for p in self.points))

    def column(self, bytes_per_s: float) -> list[Point]:
        """The points of one rate, by rising acceptance."""
        return [p for p in self.points if p.bytes_per_s == bytes_per_s]

    def to_frame(self) -> Any:
        """A row per point, as a pandas DataFrame."""
        import pandas as pd  # only here: importing pandas takes longer than planning

        names = ("bytes_per_s", "acceptance", "plain", "speculative", "ratio")
        return pd.DataFrame([{name: getattr(p, name) for name in names} for p in self.points])


def find_break_even(
    case: Case,
    *,
    over: Over | None = None,
    rates: Sequence[float] | None = None,
    acceptances: Sequence[float] = ACCEPTANCES,
    thorough: bool = False,
    progress: Progress | None = None,
) -> BreakEvenMap:
    """Re-plan at each of the `rates` of what weights come `over` (bytes/s of a large copy or read; by default multiples
    of the machine's own) with each of the `acceptances`, and without speculation: near the best plans for the machine
    as it is, or by a `thorough` search at each point. The points do not depend on the acceptance of `case`, and a plan
    for a lower acceptance is one for a higher too.

    Raises InputError where nothing drafts or there is nothing to draft for, or for a bad rate or acceptance;
    InfeasibleError where nothing fits.
    """
    _check(case, over, rates, acceptances)
    assert case.acceptance is not None
    first = start_at_any_acceptance(case, progress)
    if first.found is None:
        raise explain_infeasible(case, Fixed())

    def best(changed: Case) -> Found | None:
        return follow(first, changed, speculate=changed.acceptance is not None, thorough=thorough)

    plain = best(case.plain())
    over = over or _waits_for(case, plain or first.found)
    own = _rate(case, over)
    points = []
    for bytes_per_s in sorted(set(rates) if rates is not None else {own * multiple for multiple in MULTIPLES}):
        at_rate = case.on(case.machine.scaled(**{over: bytes_per_s / own}))
        without = rate_of(best(at_rate.plain()))
        lower: Found | None = None
        for alpha in sorted(acceptances):
            if progress is not None:
                progress(f"planning for {bytes_per_s / 1e9:.3g} GB/s, acceptance {alpha:g}")
            asked = accepting(at_rate, alpha)
            kept = unchanged(asked, lower) if lower is not None else None
            lower = max(best(asked), kept, key=rate_of)
            points.append(Point(bytes_per_s, alpha, without, rate_of(lower)))
    here = Point(own, case.acceptance.at(0), rate_of(plain), rate_of(best(case)))
    return BreakEvenMap(case, over, tuple(points), here)


def _waits_for(case: Case, found: Found) -> Over:
    """What a round is busy with for longer, of link and disk."""
    busy = utilisation(round_timeline(case, found.decision))
    return "link" if case.machine.link is not None and busy.get("h2d", 0.0) >= busy.get("disk", 0.0) else "disk"


def _rate(case: Case, over: Over) -> float:
    """The machine's own, in bytes/s."""
    link = case.machine.link
    return link.rate(pinned=True) if over == "link" and link is not None else case.machine.disk.rate()


def break_even(column: Sequence[Point]) -> float | None:
    """The acceptance from which speculation pays, between the points of one rate on a straight line; that of the first
    where it pays at all of them, None where it pays at none."""
    if column[0].ratio > 1:
        return column[0].acceptance
    for below, above in pairwise(column):
        if above.ratio > 1:
            share = (1 - below.ratio) / (above.ratio - below.ratio)
            return below.acceptance + share * (above.acceptance - below.acceptance)
    return None


def sentence(found: BreakEvenMap) -> str:
    """Where speculation starts to pay, where this machine stands, and what a faster or slower rate would change."""
    way = "link" if found.over == "link" else "disk"
    here, acceptance = found.here, found.case.acceptance
    assert acceptance is not None
    known = f"{acceptance.at(0):g} ({acceptance.kind})"
    if not here.plain or not here.speculative:
        first = f"Only plans {'with' if here.speculative else 'without'} speculation fit this machine"
    elif here.ratio > 1:
        first = f"At an acceptance of {known} speculation makes this machine {here.ratio:.2f} times as fast"
    else:
        first = f"At an acceptance of {known} speculation does not pay on this machine ({here.ratio:.2f} times as fast)"
    starts = [_starts(found.column(rate), rate) for rate in found.rates]
    return f"{first}. It pays on a {way} of {', '.join(starts)}."


def _starts(column: Sequence[Point], rate: float) -> str:
    at = break_even(column)
    if at is None:
        return f"{rate / 1e9:.3g} GB/s never"
    if at == column[0].acceptance:
        return f"{rate / 1e9:.3g} GB/s from {at:g} or less"
    return f"{rate / 1e9:.3g} GB/s from {at:.2f}"


def _check(case: Case, over: Over | None, rates: Sequence[float] | None, acceptances: Sequence[float]) -> None:
    if case.acceptance is None:
        raise InputError("nothing drafts", where="breakeven", hint="name a --draft, or ngram")
    if case.workload.output_tokens == 1:
        hint = "the prompt's own pass makes it; give more --output-tokens"
        raise InputError("there is nothing to draft for: every request wants one token", where="breakeven", hint=hint)
    if over == "link" and case.machine.link is None:
        raise InputError("there is no link, as there is no GPU", where="over", hint="give disk")
    for rate in rates or ():
        if not 0 < rate < float("inf"):
            raise InputError(f"a rate is {rate:g} bytes/s", where="rates", hint="give more than zero")
    for alpha in acceptances:
        if not 0 <= alpha <= 1:
            raise InputError(f"an acceptance is {alpha:g}", where="acceptances", hint="give 0 to 1")
    if (rates is not None and not rates) or not acceptances:
        raise InputError("there is no point to plan for", where="breakeven", hint="give rates and acceptances")
