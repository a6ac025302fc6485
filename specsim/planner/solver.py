"""Integer programs, with the solver hidden: PuLP's bundled CBC, single-threaded so that answers repeat exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pulp

SOLVER: Final = "CBC"

Term = tuple[float, pulp.LpVariable]


class Program:
    """A minimisation over non-negative variables."""

    def __init__(self) -> None:
        self._problem = pulp.LpProblem("placement", pulp.LpMinimize)
        self._count = 0

    def real(self) -> pulp.LpVariable:
        return self._variable(None, "Continuous")

    def integer(self, top: int) -> pulp.LpVariable:
        """A whole number from 0 to `top`."""
        return self._variable(top, "Integer")

    def at_most(self, terms: Iterable[Term], limit: float) -> None:
        """sum(coefficient * variable) <= limit."""
        self._problem += pulp.LpAffineExpression([(v, c) for c, v in terms]) <= limit

    def equal(self, terms: Iterable[Term], value: float) -> None:
        self._problem += pulp.LpAffineExpression([(v, c) for c, v in terms]) == value

    def minimise(self, terms: Iterable[Term]) -> None:
        self._problem.setObjective(pulp.LpAffineExpression([(v, c) for c, v in terms]))

    def solve(self, gap: float = 0.0, nodes: int | None = None) -> float | None:
        """The least objective to within a relative `gap`, or the best found after `nodes` branchings; None where
        there is no solution. Values are then on the variables."""
        self._problem.solve(pulp.PULP_CBC_CMD(msg=False, threads=1, gapRel=gap, maxNodes=nodes))
        if self._problem.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            return None
        return float(pulp.value(self._problem.objective) or 0.0)

    def _variable(self, top: int | None, category: str) -> pulp.LpVariable:
        self._count += 1
        return pulp.LpVariable(f"x{self._count}", 0, top, category)


def value(variable: pulp.LpVariable) -> float:
    return float(variable.value() or 0.0)


def count(variable: pulp.LpVariable) -> int:
    """The value of an integer variable."""
    return round(value(variable))
