"""Fit the parameters to the published throughput at 32 output tokens, and say how well they are known.

Least squares on logarithmic errors, each cell's over `SCATTER`, plus every parameter's distance from its prior over its
spread. Large errors of cells count less than their squares (the soft L1 loss, 2 (sqrt(1 + r^2) - 1)): a few runs differ
from all others by half for reasons that are not public, and should not bend the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from specsim.published.cells import UNKNOWN_POLICIES, Cell, cells
from specsim.published.parameters import Parameter, Values, parameters, predict

#: relative scatter of published figures that physics is not expected to explain
SCATTER: Final = 0.06
#: step in a logarithm for derivatives
STEP: Final = 1e-4

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted `values` by parameter, the standard deviation of their logarithms, and the median absolute error of each
    workload (of models with known policies) when all others are fitted without it."""

    values: dict[str, float]
    deviations: dict[str, float]
    left_out: dict[str, float]


def known_policies() -> tuple[Cell, ...]:
    return tuple(cell for cell in cells() if cell.model != UNKNOWN_POLICIES)


def error(cell: Cell, values: Values) -> float:
    """ln(predicted / published)."""
    return float(np.log(predict(cell, values).counted_per_s / cell.tokens_per_s))


def residuals(x: Vector, fitted: Sequence[Cell], free: Sequence[Parameter]) -> Vector:
    """What is squared and summed, at logarithms `x` of the parameters `free`: shape [cells + parameters]."""
    values = {p.name: float(np.exp(v)) for p, v in zip(free, x, strict=True)}
    off = np.array([error(cell, values) for cell in fitted]) / SCATTER
    soft = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))
    known = np.array([(v - np.log(p.prior)) / p.spread for p, v in zip(free, x, strict=True)])
    return np.concatenate([soft, known])


def jacobian(x: Vector, fitted: Sequence[Cell], free: Sequence[Parameter]) -> Vector:
    """Central differences, shape [cells + parameters, parameters]."""
    columns = []
    for i in range(len(x)):
        step = np.zeros_like(x)
        step[i] = STEP
        columns.append((residuals(x + step, fitted, free) - residuals(x - step, fitted, free)) / (2 * STEP))
    return np.column_stack(columns)


def solve(fitted: Sequence[Cell], start: Values | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """Values that minimise the residuals, and the standard deviations of their logarithms, from the Jacobian there."""
    free = parameters(fitted)
    first = np.log([np.clip((start or {}).get(p.name, p.prior), p.low * 1.001, p.high * 0.999) for p in free])
    bounds: Any = (np.log([p.low for p in free]), np.log([p.high for p in free]))
    scale = np.array([p.spread for p in free])
    found = least_squares(
        residuals, first, jac=jacobian, bounds=bounds, x_scale=scale, xtol=1e-5, ftol=1e-6, args=(fitted, free)
    )
    spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)))
    names = [p.name for p in free]
    return dict(zip(names, map(float, np.exp(found.x)), strict=True)), dict(zip(names, map(float, spread), strict=True))


def fit(say: Callable[[str], None] = lambda _: None) -> Fit:
    """The whole calibration; takes minutes. `say` is told what is going on."""
    say("all workloads")
    values, deviations = solve(cells())
    known = known_policies()
    left_out = {}
    for name in dict.fromkeys(cell.workload for cell in known):
        say(f"without {name}")
        others, _ = solve([cell for cell in known if cell.workload != name], values)
        others |= _means(others)
        errors = [abs(np.expm1(error(cell, _borrowed(others, cell)))) for cell in known if cell.workload == name]
        left_out[name] = float(np.median(errors))
    return Fit(values, deviations, left_out)


def _means(values: Values) -> dict[str, float]:
    """For each pair of models the mean acceptance over the workloads that were fitted."""
    by_model: dict[str, list[float]] = {}
    for name, value in values.items():
        if name.startswith("acceptance/"):
            by_model.setdefault(name.split("/")[1], []).append(value)
    return {f"acceptance/{model}": float(np.mean(rates)) for model, rates in by_model.items()}


def _borrowed(values: Values, cell: Cell) -> Values:
    """`values` for a cell of a workload that was left out: its pair's mean acceptance, and no session of its own."""
    mean = values.get(f"acceptance/{cell.model}")
    return values if mean is None else {**values, f"acceptance/{cell.model}/{cell.workload}": mean}
