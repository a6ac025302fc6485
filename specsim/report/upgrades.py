"""Upgrades as a picture: tokens/s against price where prices are known, else bars.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specsim.report.bars import Label, bars
from specsim.report.style import (
    INK,
    MARKS,
    PALETTE,
    PAPER,
    PLAIN,
    QUIET,
    heading,
    heading_inches,
    legend,
    new_figure,
    quiet,
)
from specsim.whatif.advice import advice
from specsim.whatif.upgrade import Purchase, Upgrades

_WIDTH, _PLOT = 9.0, 4.2  # inches
_KINDS = {"": "today", "gpu": "card", "link": "slot", "ram": "RAM", "disk": "disk", "draft": "draft"}
_PAIR = "two parts"


def draw(found: Upgrades) -> Figure:
    """The picture of what can be bought."""
    case = found.case
    title = f"What to buy for {case.target.name} on {case.machine.name}"
    priced = [p for p in found.purchases if p.price is not None and p.tokens_per_second > 0]
    if not any(p.price for p in priced):
        return _bars(found, title)
    return _scatter(found, priced, title)


def _bars(found: Upgrades, title: str) -> Figure:
    """Useful tokens/s with each purchase, the machine as it is first; a line at what that reaches."""
    order = list(dict.fromkeys(_kind(p) for p in found.purchases))
    rows = [found.base, *sorted(found.purchases, key=lambda p: order.index(_kind(p)))]
    base = found.base.tokens_per_second
    return bars(
        [Label(_kind(p), p.name) for p in rows],
        {"useful tokens/s": [p.tokens_per_second or None for p in rows]},
        title=title,
        subtitle=f"Predicted, each re-planned; dotted: today. {advice(found)}",
        write=lambda rate: f"{rate:.3g} ({rate / base - 1:+.0%})" if base else f"{rate:.3g}",
        whole=base or None,
    )


def _scatter(found: Upgrades, priced: Sequence[Purchase], title: str) -> Figure:
    """A mark per purchase, a shape and colour per kind of part; a line along those that nothing cheaper beats."""
    subtitle = f"Predicted, each re-planned; prices: {found.prices.origin}. {advice(found)}"
    top = heading_inches(subtitle, _WIDTH)
    height = _PLOT + top + 1.0
    figure = new_figure(_WIDTH, height)
    axes = figure.add_axes((0.75 / _WIDTH, 0.95 / height, 1 - 1.1 / _WIDTH, (_PLOT - 0.1) / height))
    order = [*_KINDS.values(), _PAIR]
    kinds = sorted({_kind(p) for p in priced}, key=order.index)
    _frontier(axes, [found.base, *priced])
    marks = []
    for i, kind in enumerate(kinds):
        some = [p for p in priced if _kind(p) == kind]
        marks += axes.plot(
            [p.price or 0.0 for p in some],
            [p.tokens_per_second for p in some],
            linestyle="",
            marker=MARKS[i % len(MARKS)],
            markersize=8,
            color=PALETTE[i % len(PALETTE)],
            markeredgecolor="white",
            label=kind,
            zorder=3,
        )
    marks += axes.plot(
        0, found.base.tokens_per_second, linestyle="", marker="*", markersize=13, color=INK, label="today", zorder=4
    )
    highest = max(p.tokens_per_second for p in [found.base, *priced])
    dearest = max(p.price or 0.0 for p in priced)
    axes.set_ylim(0, 1.15 * highest)
    axes.set_xlim(-0.03 * dearest, 1.22 * dearest)
    _names(axes, priced, highest, dearest)
    axes.set_xlabel(f"price, {found.prices.currency}")
    axes.set_ylabel("useful tokens/s")
    quiet(axes, grid="y")
    heading(figure, title, subtitle)
    legend(figure, marks)
    return figure


def _kind(purchase: Purchase) -> str:
    return _KINDS.get(purchase.kind, _PAIR)


def _frontier(axes: Axes, purchases: Sequence[Purchase]) -> None:
    """Steps up from the machine as it is through every purchase that no cheaper one reaches."""
    steps: list[tuple[float, float]] = []
    for p in sorted(purchases, key=lambda p: (p.price or 0.0, -p.tokens_per_second)):
        if not steps or p.tokens_per_second > steps[-1][1]:
            steps.append((p.price or 0.0, p.tokens_per_second))
    axes.step([x for x, _ in steps], [y for _, y in steps], where="post", color=QUIET, linewidth=1.0, zorder=1)


def _names(axes: Axes, purchases: Sequence[Purchase], highest: float, dearest: float) -> None:
    """Each name to the right of its mark, at the nearest height where it meets no mark and no name that is there."""
    line, letter, size = 0.045 * highest, 0.0125 * dearest, 0.012 * dearest
    taken = [((p.price or 0.0) - size, (p.price or 0.0) + size, p.tokens_per_second) for p in purchases]
    for p in sorted(purchases, key=lambda p: (-(p.price or 0.0), p.tokens_per_second)):
        left = (p.price or 0.0) + 0.018 * dearest
        right = left + letter * len(p.name)
        tries = (p.tokens_per_second + sign * step * line / 4 for step in count() for sign in (1, -1))
        height = next(h for h in tries if not any(left < b and right > a and abs(h - at) < line for a, b, at in taken))
        taken.append((left, right, height))
        name = axes.text(left, height, p.name, va="center", size=8.5, color=INK, zorder=2, **PLAIN)
        name.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.4})
