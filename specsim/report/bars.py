"""Bars side by side: a row per way of doing something, a panel per situation, a colour per group of rows.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specsim.report.style import GRID, INK, PALETTE, PAPER, PLAIN, QUIET, heading, heading_inches, new_figure

_ROW, _LINE, _BOTTOM, _NAMES, _PANEL, _GAP = 0.30, 0.18, 0.25, 3.1, 1.9, 0.5  # inches
_LEAST_WIDTH = 9.0


@dataclass(frozen=True, slots=True)
class Label:
    """A row's name, and the group that its colour stands for."""

    group: str
    name: str


def bars(
    labels: Sequence[Label],
    panels: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    subtitle: str,
    write: Callable[[float], str],
    whole: float | None = None,
    narrow: bool = False,
) -> Figure:
    """A bar per label in each panel, labelled by `write`; None where a panel has no such row. Every panel has its own
    scale, and a line at `whole`. `narrow` panels are half as wide."""
    names = list(panels)
    panel = max(_PANEL / 2 if narrow else _PANEL, (_LEAST_WIDTH - _NAMES) / len(names) - _GAP)
    width = _NAMES + len(names) * (panel + _GAP)
    top = heading_inches(subtitle, width) + _LINE * (max(name.count("\n") for name in names) + 1.4)
    height = top + _ROW * len(labels) + _BOTTOM
    figure = new_figure(width, height)
    colours = dict(zip(dict.fromkeys(label.group for label in labels), PALETTE, strict=False))
    for i, name in enumerate(names):
        left = _NAMES + i * (panel + _GAP)
        box = (left / width, _BOTTOM / height, panel / width, _ROW * len(labels) / height)
        axes = figure.add_axes(box)
        _panel(axes, labels, panels[name], colours, write, whole)
        axes.set_title(name, loc="left", size=9.5, color=INK, pad=6, **PLAIN)
        if i == 0:
            axes.set_yticks(range(len(labels)), [label.name for label in labels], size=9.5, **PLAIN)
            _groups(axes, labels, _NAMES / panel)
    heading(figure, title, subtitle)
    return figure


def _panel(
    axes: Axes,
    labels: Sequence[Label],
    values: Sequence[float | None],
    colours: Mapping[str, str],
    write: Callable[[float], str],
    whole: float | None,
) -> None:
    most = max([value for value in values if value is not None] + ([whole] if whole is not None else []), default=1.0)
    axes.set_xlim(0, 1.3 * most)  # room for the figures
    axes.set_ylim(len(labels) - 0.5, -0.5)
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        if value is not None:
            axes.barh(row, value, height=0.72, color=colours[label.group])
        text = "n/a" if value is None else write(value)
        colour = QUIET if value is None else INK
        figure = axes.text((value or 0.0) + 0.03 * most, row, text, va="center", size=8.5, color=colour)
        figure.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.6})
    if whole is not None:
        axes.axvline(whole, color=QUIET, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(GRID)


def _groups(axes: Axes, labels: Sequence[Label], left: float) -> None:
    """The name of each group beside its first row, `left` panel widths out."""
    seen: set[str] = set()
    for row, label in enumerate(labels):
        if label.group not in seen:
            seen.add(label.group)
            axes.text(
                -left + 0.06,
                row,
                label.group,
                transform=axes.get_yaxis_transform(),
                va="center",
                size=9.5,
                weight="bold",
            )
