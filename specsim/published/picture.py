"""Published against predicted as a picture: a panel per environment and model, a colour and mark per system."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specsim.published.cells import UNKNOWN_POLICIES
from specsim.published.summary import Row, summaries
from specsim.report.scatter import agreement
from specsim.report.style import INK, PALETTE, PAPER, heading, heading_inches, legend, new_figure, save

__all__ = ["draw", "save"]

#: each system's colour, a mark of its own, and its title
MARKS: Final = {
    "accelerate": (PALETTE[1], "o", "Accelerate"),
    "deepspeed": (PALETTE[4], "s", "DeepSpeed"),
    "flexgen": (PALETTE[2], "^", "FlexGen"),
    "fiddler": (PALETTE[3], "D", "Fiddler"),
    "specoffload": (PALETTE[5], "*", "SpecOffload"),
}
_PANEL, _BESIDE, _NAME, _BELOW = 3.5, 0.75, 0.35, 0.95  # inches: of a panel, and around it
_NEAR = 0.15  # the band that is shaded


def draw(rows: Sequence[Row]) -> Figure:
    """One point per cell, on logarithmic axes of equal scale; the band is within 15 % of what was published."""
    models = list(dict.fromkeys((row.cell.model, row.cell.environment) for row in rows))
    known, whole = summaries(rows)[0], summaries(rows)[-1]
    title = f"Tokens per second of {whole.cells} published runs, and what their schedules predict"
    under = f"32 output tokens; median error {known.median_error:.1%} where policies are public; "
    under += f"shaded: within {_NEAR:.0%}"
    width = len(models) * (_PANEL + _BESIDE) + 0.15
    height = heading_inches(under, width) + _NAME + _PANEL + _BELOW
    figure = new_figure(width, height)
    for i, (model, environment) in enumerate(models):
        left = i * (_PANEL + _BESIDE) + _BESIDE
        axes = figure.add_axes((left / width, _BELOW / height, _PANEL / width, _PANEL / height))
        _panel(axes, [row for row in rows if row.cell.model == model])
        note = ", batches fitted" if model == UNKNOWN_POLICIES else ""
        axes.set_title(f"{model} on {environment}{note}", size=9.5, color=INK, loc="left")
    handles = [
        Line2D([], [], color=colour, marker=mark, linestyle="", markersize=10 if mark == "*" else 7, label=title)
        for colour, mark, title in MARKS.values()
    ]
    legend(figure, handles, left=_BESIDE)
    heading(figure, title, under)
    return figure


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    speeds = [speed for row in rows for speed in (row.counted, row.cell.tokens_per_s)]
    agreement(axes, min(speeds) / 1.35, max(speeds) * 1.35, _NEAR)
    for name, (colour, mark, _) in MARKS.items():
        mine = [row for row in rows if row.cell.system == name]
        x, y = [row.cell.tokens_per_s for row in mine], [row.counted for row in mine]
        size = 110 if mark == "*" else 42
        axes.scatter(x, y, s=size, color=colour, marker=mark, edgecolor=PAPER, linewidth=0.6, zorder=3)
    axes.set_xlabel("published tokens/s")
    axes.set_ylabel("predicted tokens/s")
