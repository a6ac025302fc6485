"""Published against predicted as a picture: a panel per environment and model, a colour and mark per system."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specsim.errors import InputError
from specsim.published.cells import UNKNOWN_POLICIES
from specsim.published.summary import Row, summaries

#: colours of Okabe and Ito, Color Universal Design (2008), each with a mark of its own
MARKS: Final = {
    "accelerate": ("#E69F00", "o", "Accelerate"),
    "deepspeed": ("#56B4E9", "s", "DeepSpeed"),
    "flexgen": ("#009E73", "^", "FlexGen"),
    "fiddler": ("#CC79A7", "D", "Fiddler"),
    "specoffload": ("#D55E00", "*", "SpecOffload"),
}
_INK, _QUIET, _BAND = "#1a1a1a", "#666666", "#eeeeee"


def draw(rows: Sequence[Row]) -> Figure:
    """One point per cell, on logarithmic axes of equal scale; the band is within 15 % of what was published."""
    models = list(dict.fromkeys((row.cell.model, row.cell.environment) for row in rows))
    figure = Figure(figsize=(4.2 * len(models), 5.0), layout="constrained")
    for axes, (model, environment) in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        _panel(axes, [row for row in rows if row.cell.model == model])
        note = ", batches fitted" if model == UNKNOWN_POLICIES else ""
        axes.set_title(f"{model} on {environment}{note}", fontsize=11, color=_INK, loc="left")
    handles = [
        Line2D([], [], color=colour, marker=mark, linestyle="", markersize=10 if mark == "*" else 7, label=title)
        for colour, mark, title in MARKS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    known, whole = summaries(rows)[0], summaries(rows)[-1]
    title = f"Tokens per second of {whole.cells} published runs, and what their schedules predict"
    under = f"32 output tokens; median error {known.median_error:.1%} where policies are public; band: within 15 %"
    figure.suptitle(f"{title}\n", fontsize=13, x=0.01, ha="left", color=_INK)
    figure.text(0.01, 0.925, under, fontsize=10, color=_QUIET)
    return figure


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    speeds = [speed for row in rows for speed in (row.counted, row.cell.tokens_per_s)]
    low, high = min(speeds) / 1.35, max(speeds) * 1.35
    axes.fill_between([low, high], [low / 1.15, high / 1.15], [low * 1.15, high * 1.15], color=_BAND, linewidth=0)
    axes.plot([low, high], [low, high], color=_QUIET, linewidth=0.8)
    for name, (colour, mark, _) in MARKS.items():
        mine = [row for row in rows if row.cell.system == name]
        x, y = [row.cell.tokens_per_s for row in mine], [row.counted for row in mine]
        size = 110 if mark == "*" else 42
        axes.scatter(x, y, s=size, color=colour, marker=mark, edgecolor="white", linewidth=0.6, zorder=3)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50) if low < tick < high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axis.set_minor_formatter(lambda *_: "")
    axes.set_xlabel("published tokens/s", color=_INK)
    axes.set_ylabel("predicted tokens/s", color=_INK)
    axes.spines[["top", "right"]].set_visible(False)


def save(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write the picture. Raises InputError where it cannot be written."""
    try:
        draw(rows).savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be written: {error}", where=str(path)) from None
