"""The one look of all pictures: colours that colour-blind readers and grey printers tell apart, headings, quiet axes.

Drawn with matplotlib but without pyplot: no display, no global state. matplotlib takes long to load, so nothing
imports this module at start-up.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specsim.errors import InputError

#: Okabe and Ito, Color Universal Design (2008): told apart with common colour blindness too. Grey is ours.
PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
#: for a series of points or a line each, beside its colour: shapes are told apart in grey
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
#: colour maps for heat maps: amounts (Nuñez et al. 2018, cividis), and differences around a middle
AMOUNTS: Final = "cividis"
DIFFERENCES: Final = "PuOr"

INK, QUIET, GRID, LANE, PAPER = "#1a1a1a", "#666666", "#d8d8d8", "#f1f1f1", "#ffffff"
DPI: Final = 400 / 3

#: keywords of every text that may hold a name from a file: a dollar sign in it is a dollar sign
PLAIN: Final[dict[str, Any]] = {"parse_math": False}
_TITLE: Final[dict[str, Any]] = PLAIN | {"size": 14, "weight": "bold", "color": INK}
_SUBTITLE: Final[dict[str, Any]] = PLAIN | {"size": 9.5, "color": QUIET, "va": "top", "linespacing": 1.3}
_LETTERS = 13.0  # of a subtitle, in an inch
_TITLE_IN, _LINE_IN, _GAP_IN = 0.46, 0.18, 0.12  # inches that the title, each line below it and the gap then take


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)


def heading_inches(subtitle: str, width: float) -> float:
    """What `heading` takes of the top of a figure so wide, to be added to the height of what is drawn."""
    return _TITLE_IN + _LINE_IN * len(_wrapped(subtitle, width)) + _GAP_IN


def heading(figure: Figure, title: str, subtitle: str = "", *, left: float = 0.1) -> None:
    """Write what the picture shows, and below it how to read it, `left` inches from the edge."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - 0.34 / height, title, **_TITLE)
    lines = "\n".join(_wrapped(subtitle, width - left))
    figure.text(left / width, 1 - _TITLE_IN / height, lines, **_SUBTITLE)


def legend(figure: Figure, handles: Sequence[Artist], *, left: float = 0.1, columns: int | None = None) -> None:
    """Name what is drawn, by the labels of `handles`, along the lower edge, `left` inches from the other; in one line
    unless in so many `columns`."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(left / width, 0.1 / height),
        ncols=columns or max(len(handles), 1),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        fontsize=9.5,
        labelcolor=INK,
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.6,
    )


def quiet(axes: Axes, *, grid: str = "") -> None:
    """Leave of the frame what is needed to read values; `grid` is "x", "y" or "both"."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(which="both", length=0, labelcolor=INK, labelsize=9.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=QUIET, size=9.5)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.6)  # type: ignore[arg-type]  # checked by matplotlib


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure in the format that the suffix names: png, svg, pdf. Raises InputError if it cannot."""
    try:
        figure.savefig(path, dpi=figure.dpi)
    except OSError as error:
        raise InputError(f"cannot write the picture: {error.strerror}", where=str(path)) from None
    except ValueError as error:
        hint = "end the name in .png, .svg or .pdf"
        raise InputError(f"cannot write the picture: {error}", where=str(path), hint=hint) from None


def _wrapped(subtitle: str, width: float) -> list[str]:
    return wrap(subtitle, max(20, int(_LETTERS * width)))
