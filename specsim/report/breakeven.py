"""A break-even map as a picture: how many times as fast speculation is, where it starts to pay, where this machine is.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from specsim.report.style import DIFFERENCES, INK, heading, heading_inches, legend, new_figure, quiet
from specsim.whatif.breakeven import BreakEvenMap, break_even, sentence

_WIDTH, _ROW, _BELOW = 9.0, 0.42, 1.15  # inches
#: colours are even at this factor
_MOST = 3.0


def draw(found: BreakEvenMap) -> Figure:
    """A cell per point, coloured by the logarithm of its ratio, which is written in it."""
    case, rates = found.case, found.rates
    alphas = sorted({p.acceptance for p in found.points})
    subtitle = f"Useful tokens/s of the best plan that speculates over the best that does not. {sentence(found)}"
    top = heading_inches(subtitle, _WIDTH)
    height = top + _ROW * len(alphas) + _BELOW
    figure = new_figure(_WIDTH, height)
    axes = figure.add_axes((0.75 / _WIDTH, 0.95 / height, 1 - 1.0 / _WIDTH, _ROW * len(alphas) / height))
    ratios = np.array([[p.ratio for p in found.column(rate)] for rate in rates]).T  # [acceptances, rates]
    most = math.log(_MOST)
    logs = np.clip(np.log(np.maximum(ratios, 1e-9)), -most, most)
    axes.imshow(logs, cmap=DIFFERENCES, vmin=-most, vmax=most, origin="lower", aspect="auto", zorder=1)
    for row, column in np.ndindex(*ratios.shape):
        ratio, shade = ratios[row, column], abs(logs[row, column]) / most
        ink = "white" if shade > 0.75 else INK
        axes.text(column, row, f"{ratio:.2f}", ha="center", va="center", size=9, color=ink, zorder=2)
    marks = _mark(axes, found, alphas)
    axes.set_xticks(range(len(rates)), [f"{rate / 1e9:.3g}" for rate in rates])
    axes.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set_xlabel(f"GB/s {'over the link' if found.over == 'link' else 'from the disk'}")
    axes.set_ylabel("acceptance")
    quiet(axes)
    heading(figure, f"Where speculation pays: {case.target.name} on {case.machine.name}", subtitle)
    legend(figure, marks)
    return figure


def _mark(axes: Axes, found: BreakEvenMap, alphas: list[float]) -> list[Line2D]:
    """The break-even line through the rates at which there is one, and a ring around this machine: for the legend."""
    marks = []
    rates, places = found.rates, range(len(alphas))
    contour = [(i, at) for i, rate in enumerate(rates) if (at := break_even(found.column(rate))) is not None]
    if contour:
        heights = np.interp([at for _, at in contour], alphas, places)
        marks += axes.plot(
            [i for i, _ in contour], heights, color=INK, linewidth=2, marker="o", ms=4, label="breaks even"
        )
    here = found.here
    if rates[0] <= here.bytes_per_s <= rates[-1] and alphas[0] <= here.acceptance <= alphas[-1]:
        column = np.interp(math.log(here.bytes_per_s), np.log(rates), range(len(rates)))
        up = np.interp(here.acceptance, alphas, places)
        known = found.case.acceptance
        word = f" (acceptance {known.kind})" if known is not None else ""
        ring = axes.plot([column], [up], "o", ms=28, mfc="none", mec=INK, mew=2)[0]
        small = Line2D([], [])
        small.update_from(ring)
        small.set(markersize=9, label=f"this machine{word}")
        marks.append(small)
    return marks
