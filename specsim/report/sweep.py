"""A sweep as a picture: curves over one field, coloured by a second; or a heat map where both are finely divided.

A third field gives a panel for each of its values. matplotlib takes long to load, so nothing imports this module at
start-up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specsim.report.style import AMOUNTS, INK, MARKS, PALETTE, heading, new_figure, quiet, save
from specsim.whatif.answer import Answer
from specsim.whatif.sweep import Sweep
from specsim.whatif.vary import Axis, Value

__all__ = ["picture", "save"]

#: values of each of two numeric fields from which on a heat map says more than curves
FINE: Final = 4
#: cells of a panel beyond which no numbers are written into them
WRITTEN: Final = 60
_WIDE, _HIGH, _TOP, _LEFT = 5.6, 3.9, 1.0, 0.85  # inches of a panel, and around it
_SUBTITLE: Final = "Useful tokens/s, planned anew at every point. Predicted. "

Cell = Mapping[tuple[Value, ...], Answer]


def picture(sweep: Sweep) -> Figure:
    """The throughput at every point. Raises ValueError for more than three axes."""
    if not 1 <= len(sweep.axes) <= 3:
        raise ValueError(f"{len(sweep.axes)} fields: a picture shows one to three")
    order = sorted(range(len(sweep.axes)), key=lambda i: (not _numeric(sweep.axes[i]), -len(sweep.axes[i].values)))
    axes = [sweep.axes[i] for i in order]  # along x, colour or y, panels
    answers = {tuple(p[i] for i in order): a for p, a in zip(sweep.points(), sweep.answers, strict=True)}
    heat = len(axes) > 1 and all(_numeric(axis) and len(axis.values) >= FINE for axis in axes[:2])
    panels: Sequence[tuple[Value, ...]] = [(v,) for v in axes[2].values] if len(axes) > 2 else [()]
    width, height = _LEFT + _WIDE * len(panels) + (1.0 if heat else 0.0), _TOP + _HIGH + 0.55
    figure = new_figure(width, height)
    speeds = [a.tokens_per_second for a in answers.values() if a.tokens_per_second is not None]
    top = max(speeds, default=1.0)
    for number, panel in enumerate(panels):
        left, wide = (_LEFT + _WIDE * number) / width, (_WIDE - 0.75) / width
        ax = figure.add_axes((left, 0.55 / height, wide, (_HIGH - (0.25 if panel else 0.0)) / height))
        here = {point[: len(axes[:2])]: a for point, a in answers.items() if point[2:] == panel}
        if heat:
            mesh = _map(ax, axes[0], axes[1], here, (min(speeds, default=0.0), top))
        else:
            _curves(ax, axes[:2], here, top)
        if panel:
            ax.set_title(f"{axes[2].field.name} {_label(axes[2], panel[0])}", fontsize=10, color=INK, loc="left")
    if heat:
        side = figure.add_axes(((width - 1.05) / width, 0.55 / height, 0.16 / width, _HIGH / height))
        figure.colorbar(mesh, cax=side).outline.set_visible(False)
    how = "Numbers below them: draft length where speculation wins. White: no plan fits." if heat else _HOW
    title = f"Throughput over {' and '.join(axis.field.name for axis in axes)}"
    heading(figure, title, _SUBTITLE + how, left=0.15)
    return figure


_HOW: Final = "Filled: the best plan speculates; hollow: it does not; a cross at 0: no plan fits."


def _curves(ax: Axes, axes: Sequence[Axis], answers: Cell, top: float) -> None:
    """A curve over the first axis for each value of the second."""
    quiet(ax, grid="y")
    along = axes[0]
    places = _places(along)
    for number, value in enumerate(axes[1].values if len(axes) > 1 else (None,)):
        rest = () if value is None else (value,)
        line = [answers[(v, *rest)] for v in along.values]
        colour, mark = PALETTE[number % len(PALETTE)], MARKS[number % len(MARKS)]
        speeds = [math.nan if a.tokens_per_second is None else a.tokens_per_second for a in line]
        ax.plot(places, speeds, color=colour, lw=1.3, zorder=2, linestyle="-" if _numeric(along) else "")
        for x, speed, a in zip(places, speeds, line, strict=True):
            missing = a.tokens_per_second is None
            face = colour if a.gamma else "white"
            ax.plot(
                [x], [0.0 if missing else speed], "x" if missing else mark, color=colour, mfc=face, ms=5.5, zorder=3
            )
    ax.set_ylim(-0.02 * top, 1.08 * top)
    ax.set_ylabel("useful tokens/s", color=INK)
    _scale(ax, along)
    if len(axes) > 1:
        keys = [
            Line2D(
                [], [], color=PALETTE[n % len(PALETTE)], marker=MARKS[n % len(MARKS)], lw=1.3, label=_label(axes[1], v)
            )
            for n, v in enumerate(axes[1].values)
        ]
        ax.legend(handles=keys, title=axes[1].field.name, frameon=False, fontsize=9, title_fontsize=9, loc="best")


def _map(ax: Axes, along: Axis, up: Axis, answers: Cell, ends: tuple[float, float]) -> Any:
    """A cell for every pair of values; returns what a colour bar is made for."""
    quiet(ax)
    speeds = np.array([[answers[x, y].tokens_per_second or math.nan for x in along.values] for y in up.values])
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(speeds), cmap=AMOUNTS, vmin=ends[0], vmax=ends[1], edgecolors="white", lw=1
    )
    for axis, of in ((ax.xaxis, along), (ax.yaxis, up)):
        axis.set_ticks(np.arange(len(of.values)) + 0.5, labels=[_label(of, v) for v in of.values])
    ax.set_xlabel(along.field.column, color=INK)
    ax.set_ylabel(up.field.column, color=INK)
    if speeds.size <= WRITTEN:
        middle = sum(ends) / 2
        for row, y in enumerate(up.values):
            for column, x in enumerate(along.values):
                a = answers[x, y]
                if a.tokens_per_second is not None:
                    text = f"{a.tokens_per_second:.3g}" + (f"\nγ {a.gamma}" if a.gamma else "")
                    colour = INK if a.tokens_per_second > middle else "white"
                    ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=colour)
    return mesh


def _numeric(axis: Axis) -> bool:
    return axis.field.numeric and not any(isinstance(value, str) for value in axis.values)


def _places(axis: Axis) -> list[float]:
    """Where the values stand: at themselves, or one after another where they are names."""
    if not _numeric(axis):
        return [float(place) for place in range(len(axis.values))]
    return [float(axis.field.shown(value)) for value in axis.values]


def _scale(ax: Axes, axis: Axis) -> None:
    """Ticks at the values; logarithmic where they are spread by factors."""
    places = _places(axis)
    if _numeric(axis) and not axis.field.even and min(places) > 0:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(lambda *_: "")
    step = -(-len(places) // 10)  # no more labels than there is room for
    ax.set_xticks(places[::step], labels=[_label(axis, value) for value in axis.values[::step]])
    ax.set_xlabel(axis.field.column, color=INK)


def _label(axis: Axis, value: Value) -> str:
    shown = axis.field.shown(value)
    return f"{shown:.3g}" if isinstance(shown, float) else str(shown)
