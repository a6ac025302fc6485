"""A memory curve as a picture: tokens/s over the budget, and below it what the memory holds at each budget.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from specsim.memory import PHASES, peak_items, totals
from specsim.planner.anew import rate_of
from specsim.planner.search import Found
from specsim.report.memory import COLOURS, grouped
from specsim.report.style import GRID, INK, PALETTE, PLAIN, heading, heading_inches, legend, new_figure, quiet
from specsim.units import show
from specsim.whatif.budget import MemoryCurve, Point
from specsim.whatif.knee import keeps, knee, pays_from, sentence

_WIDTH, _CURVE, _HELD, _BETWEEN, _BELOW, _LEGEND = 9.0, 2.6, 1.9, 0.45, 0.55, 0.4  # inches
_LEFT, _RIGHT = 0.95, 0.3
_SPECULATING, _WITHOUT = PALETTE[0], PALETTE[1]


def draw(found: MemoryCurve) -> Figure:
    """Two panels over the same budgets."""
    subtitle = (
        f"Useful tokens/s of the best plans for each budget, and what they hold at most. Predicted. {sentence(found)}"
    )
    top = heading_inches(subtitle, _WIDTH)
    height = top + _CURVE + _BETWEEN + _HELD + _BELOW + _LEGEND
    figure = new_figure(_WIDTH, height)
    left, width = _LEFT / _WIDTH, 1 - (_LEFT + _RIGHT) / _WIDTH
    low = (_LEGEND + _BELOW) / height
    held = figure.add_axes((left, low, width, _HELD / height))
    curve = figure.add_axes((left, low + (_HELD + _BETWEEN) / height, width, _CURVE / height), sharex=held)
    groups = _held(held, found)
    _curves(curve, found)
    heading(figure, f"What memory is worth: {found.case.target.name} on {found.case.machine.name}", subtitle)
    legend(figure, groups)
    return figure


def _curves(axes: Axes, found: MemoryCurve) -> None:
    quiet(axes, grid="y")
    budgets = [point.budget_bytes for point in found.points]
    for name, colour, mark, rates in (
        ("speculating", _SPECULATING, "o", [rate_of(point.speculative) for point in found.points]),
        ("without speculation", _WITHOUT, "s", [rate_of(point.plain) for point in found.points]),
    ):
        drawn = [rate or np.nan for rate in rates]  # where none fits there is no line
        axes.plot(budgets, drawn, color=colour, marker=mark, ms=4, linewidth=1.6, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens/s")
    axes.tick_params(labelbottom=False)
    _mark(axes, "knee", knee(found), 0.04)
    _mark(axes, "still pays", pays_from(found), 0.12)
    _mark(axes, f"keeps {found.keep:.0%}", keeps(found), 0.20)
    axes.legend(fontsize=9.5, labelcolor=INK, loc="upper left", frameon=False)


def _mark(axes: Axes, text: str, point: Point | None, up: float) -> None:
    """A line at a budget, and beside it what it is, `up` a share of the height."""
    if point is not None:
        axes.axvline(point.budget_bytes, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        at, low, high = axes.get_xaxis_transform(), *axes.get_xlim()
        side = "left" if point.budget_bytes < math.sqrt(low * high) else "right"  # of the line, as there is room
        axes.text(point.budget_bytes, up, f" {text} ", transform=at, size=8.5, color=INK, va="bottom", ha=side)


def _held(axes: Axes, found: MemoryCurve) -> list[Artist]:
    """The items of the plan that speculates in the phase in which the memory is fullest, stacked, and the budget."""
    quiet(axes)
    points = [point for point in found.points if point.speculative is not None]
    budgets = np.array([point.budget_bytes for point in points])
    bars = [_fullest(found, point.speculative) for point in points]
    base = np.zeros(len(points))
    for group, colour in COLOURS.items():
        sizes = np.array([bar[group] for bar in bars])
        if sizes.any():
            axes.fill_between(budgets, base, base + sizes, color=colour, linewidth=0, step="mid")
            base += sizes
    ends = [point.budget_bytes for point in found.points]
    axes.plot(ends, ends, color=INK, linewidth=1.2, drawstyle="steps-mid")
    axes.set_xscale("log")
    axes.set_xlim(0.97 * min(ends), 1.03 * max(ends))
    axes.set_ylim(0, 1.03 * max(ends))
    ticks = np.geomspace(min(ends), max(ends), 6)
    axes.set_xticks(ticks, [show(float(tick), "bytes") for tick in ticks])
    axes.minorticks_off()
    high = [max(ends) * share for share in (0.5, 1.0)]
    axes.set_yticks(high, [show(float(tick), "bytes") for tick in high])
    axes.set_xlabel(f"{found.memory.upper()} that the plan may use", **PLAIN)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    drawn = {group for bar in bars for group, size in bar.items() if size}
    patches: list[Artist] = [Patch(color=colour, label=group) for group, colour in COLOURS.items() if group in drawn]
    return [*patches, Line2D([], [], color=INK, linewidth=1.2, label="budget")]


def _fullest(found: MemoryCurve, plan: Found | None) -> dict[str, float]:
    """Bytes by group."""
    assert plan is not None
    peaks = peak_items(found.case, plan.decision)
    phase = max(PHASES, key=lambda name: totals(peaks)[name][found.memory])
    return dict(grouped(peaks[phase][found.memory]))
