"""How good predictions were on a set of configurations: errors, ranks and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr


@dataclass(frozen=True, slots=True)
class Outcome:
    """One configuration: useful tokens per second as planned, the interval's ends, and as measured. `why` is the
    sentence of the comparison."""

    name: str
    planned: float
    low: float
    high: float
    measured: float
    why: str = ""

    @property
    def error(self) -> float:
        """How many times too high the prediction was, less one."""
        return self.planned / self.measured - 1


@dataclass(frozen=True, slots=True)
class Scores:
    """Absolute errors over `count` outcomes; `rank` is Spearman's correlation of planned and measured throughput,
    `coverage` the share of the intervals that hold what was measured. `log_error` is the root mean square of
    log(planned / measured)."""

    count: int
    median: float
    p90: float
    worst: float
    rank: float
    coverage: float
    log_error: float


def scores(outcomes: Sequence[Outcome]) -> Scores:
    """The scores of one outcome or more."""
    errors = np.abs([outcome.error for outcome in outcomes])
    planned, measured = (np.array([getattr(o, name) for o in outcomes]) for name in ("planned", "measured"))
    return Scores(
        count=len(outcomes),
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
        worst=float(errors.max()),
        rank=float(spearmanr(planned, measured).statistic) if len(outcomes) > 1 else 1.0,
        coverage=float(np.mean([o.low <= o.measured <= o.high for o in outcomes])),
        log_error=float(np.sqrt(np.mean(np.log(planned / measured) ** 2))),
    )


def worst(outcomes: Sequence[Outcome], count: int = 3) -> list[Outcome]:
    """Those with the largest errors, the largest first."""
    return sorted(outcomes, key=lambda outcome: -abs(outcome.error))[:count]
