"""Predicted against measured throughput of many configurations as a picture, each with its interval.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from specsim.timeline.gantt import save
from specsim.validation.interval import LEVEL
from specsim.validation.scores import Outcome, scores

_INSIDE, _OUTSIDE = "#0072B2", "#D55E00"  # Okabe and Ito, as in timelines
_INK, _QUIET, _BAND = "#1a1a1a", "#666666", "#efefef"
_NEAR = 0.2  # the band around "as predicted" that is shaded


def draw(outcomes: Sequence[Outcome], path: str) -> None:
    """Write the picture, in the format that the suffix names. Raises InputError if it cannot."""
    figure = Figure(figsize=(7.5, 7.5), dpi=150, facecolor="white")
    axes = figure.add_axes((0.11, 0.09, 0.84, 0.77))
    ends = [speed for o in outcomes for speed in (o.low, o.high, o.measured)]
    span = np.array([min(ends) / 1.15, max(ends) * 1.15])
    axes.fill_between(span, span / (1 + _NEAR), span * (1 + _NEAR), color=_BAND, zorder=0)
    axes.plot(span, span, color=_QUIET, linewidth=1, zorder=1)
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
    axes.set(xscale="log", yscale="log", xlim=span, ylim=span, aspect="equal")
    axes.set_xlabel("measured, useful tokens/s", color=_INK)
    axes.set_ylabel("predicted", color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, labelcolor=_INK)
    total = scores(outcomes)
    told = f"median error {total.median:.1%}, p90 {total.p90:.1%}, rank correlation {total.rank:.3f}"
    figure.text(0.11, 0.94, f"{total.count} configurations, predicted and measured", size=14, weight="bold", color=_INK)
    figure.text(0.11, 0.905, f"{told}; shaded: within {_NEAR:.0%}", size=10, color=_QUIET)
    save(figure, path)
