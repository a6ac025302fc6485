"""Predicted against measured throughput of many configurations as a picture, each with its interval.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from specsim.report.style import INK, LANE, PALETTE, QUIET, heading, new_figure, quiet, save
from specsim.validation.interval import LEVEL
from specsim.validation.scores import Outcome, scores

__all__ = ["agreement", "save", "scatter"]

_INSIDE, _OUTSIDE = PALETTE[0], PALETTE[5]
_NEAR = 0.2  # the band around "as predicted" that is shaded
_SIZE = 7.5  # inches
#: of logarithmic axes that span no more than two decades
_TICKS: Final = (1, 2, 5)


def scatter(outcomes: Sequence[Outcome]) -> Figure:
    """A point per outcome, the planned throughput above the measured one, with the interval that was to be expected."""
    figure = new_figure(_SIZE, _SIZE)
    axes = figure.add_axes((0.11, 0.09, 0.84, 0.77))
    ends = [speed for o in outcomes for speed in (o.low, o.high, o.measured)]
    agreement(axes, min(ends) / 1.15, max(ends) * 1.15, _NEAR)
    for inside, colour, marker, name in (
        (True, _INSIDE, "o", f"the {LEVEL:.0%} interval holds what was measured"),
        (False, _OUTSIDE, "D", "it does not"),
    ):
        some = [o for o in outcomes if (o.low <= o.measured <= o.high) == inside]
        if some:
            planned = np.array([o.planned for o in some])
            reach = np.abs(np.array([[o.low for o in some], [o.high for o in some]]) - planned)
            measured = [o.measured for o in some]
            axes.errorbar(
                measured, planned, yerr=reach, fmt=marker, color=colour, ms=5, lw=1, label=f"{name} ({len(some)})"
            )
    axes.set_xlabel("measured, useful tokens/s")
    axes.set_ylabel("predicted, useful tokens/s")
    axes.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=9.5)
    total = scores(outcomes)
    told = f"median error {total.median:.1%}, p90 {total.p90:.1%}, rank correlation {total.rank:.3f}"
    title = f"{total.count} configurations, predicted and measured"
    heading(figure, title, f"{told}; shaded: within {_NEAR:.0%}", left=0.11 * _SIZE)
    return figure


def agreement(axes: Axes, low: float, high: float, near: float) -> None:
    """Equal logarithmic axes from `low` to `high`, the line on which a prediction comes true, and a band of `near`
    (0.2: a fifth) around it."""
    quiet(axes)
    span = np.array([low, high])
    axes.fill_between(span, span / (1 + near), span * (1 + near), color=LANE, linewidth=0, zorder=0)
    axes.plot(span, span, color=QUIET, linewidth=0.8, zorder=1)
    axes.set(xscale="log", yscale="log", xlim=span, ylim=span, aspect="equal")
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))))
    steps = _TICKS if len(decades) < 4 else _TICKS[:1]
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axis.set_minor_formatter(lambda *_: "")
