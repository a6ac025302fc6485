"""How far a prediction may be off: an interval that the measured throughput is to lie in, four times out of five.

Three causes, taken as independent and each as a standard deviation of log throughput:

- rates: every measured rate of the machine's profile varies by the spread that its source states; the job is simulated
  once more with the rate that much lower;
- luck: which tokens are accepted; the job is simulated for several seeds;
- model: what the cost model and the schedule leave out: `MODEL_ERROR`, found on configurations that no claim about
  predictions is checked on (`specsim.validation.configurations.FIT`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import stdev
from typing import Final

from specsim.answer import Plan
from specsim.hardware import Machine
from specsim.simulator.job import simulate_job

LEVEL: Final = 0.8
#: quantile (1 + LEVEL) / 2 of the normal distribution
_WIDTH: Final = 1.2816
#: root mean square of the log errors of `FIT` (`specsim validate --matrix --fit`, two cores of a shared virtual
#: machine, 2026-11-22); to be found anew whenever the cost model or the executor changes
MODEL_ERROR: Final = 0.106
SEEDS: Final = range(1, 9)
#: a coarser grid of round shapes than a plan's own: only ratios are taken
_GRID: Final = 1.15

#: facts of a machine's profile that are rates, and the factor of `Machine.scaled` that changes each
_RATES: Final = {
    "gpu.bf16": "gpu",
    "gpu.vram_bandwidth": "vram_bw",
    "host.bf16": "cpu",
    "host.dram_bandwidth": "dram",
    "link.bandwidth": "link",
    "disk.bandwidth": "disk",
}
_SPREAD: Final = re.compile(r"\bspread ([\d.]+)%")


@dataclass(frozen=True, slots=True)
class Interval:
    """Tokens per second from `low` to `high`; `causes` are the standard deviations of log throughput behind it."""

    low: float
    high: float
    causes: Mapping[str, float]

    def __contains__(self, tokens_per_second: float) -> bool:
        return self.low <= tokens_per_second <= self.high


def interval(plan: Plan, *, model_error: float = MODEL_ERROR) -> Interval:
    """The interval around the plan's own throughput."""
    causes = {"rates": _rates(plan), "luck": _luck(plan), "model": model_error}
    reach = math.exp(_WIDTH * math.hypot(*causes.values()))
    middle = plan.predicted.tokens_per_second
    return Interval(middle / reach, middle * reach, causes)


def spreads(machine: Machine) -> dict[str, float]:
    """Relative spread of every rate that was measured with one, by its factor of `Machine.scaled`."""
    found = {}
    for fact in machine.facts:
        spread = _SPREAD.search(fact.source) if fact.kind == "measured" and fact.field in _RATES else None
        if spread is not None:
            found[_RATES[fact.field]] = float(spread[1]) / 100
    return found


def _rates(plan: Plan) -> float:
    base = _throughput(plan)
    return math.hypot(
        *(
            math.log(base / _throughput(plan, plan.case.machine.scaled(**{name: 1 / (1 + spread)})))
            for name, spread in spreads(plan.case.machine).items()
        )
    )


def _luck(plan: Plan) -> float:
    if not plan.decision.policy.gamma:
        return 0.0
    return stdev(math.log(_throughput(plan, seed=seed)) for seed in SEEDS)


def _throughput(plan: Plan, machine: Machine | None = None, seed: int | None = None) -> float:
    case = plan.case if machine is None else plan.case.on(machine)
    return simulate_job(case, plan.decision, grid=_GRID, seed=seed).tokens_per_second
