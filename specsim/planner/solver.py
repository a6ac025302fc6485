"""Integer programs, with the solver hidden: HiGHS through SciPy, in this process, on one thread: answers repeat.

HiGHS 1.12 may print a line that nobody asked for (its issue 2783): see `specsim.cli.process` for the command line. In a
library, stdout belongs to the caller and to the caller's other threads, so nothing is done about it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

SOLVER: Final = "HiGHS"
#: counts below this are zero but for rounding
NOTHING: Final = 1e-6

Variable = int  # its column
Term = tuple[float, Variable]


class Program:
    """A minimisation over non-negative variables."""

    def __init__(self) -> None:
        self._tops: list[float] = []
        self._whole: list[bool] = []
        self._rows: list[list[Term]] = []
        self._least: list[float] = []
        self._most: list[float] = []
        self._costs: list[Term] = []
        self._values: Sequence[float] = ()

    def real(self) -> Variable:
        return self._variable(math.inf, whole=False)

    def integer(self, top: int) -> Variable:
        """A whole number from 0 to `top`."""
        return self._variable(float(top), whole=True)

    def at_most(self, terms: Iterable[Term], limit: float) -> None:
        """sum(coefficient * variable) <= limit."""
        self._row(terms, -math.inf, limit)

    def equal(self, terms: Iterable[Term], value: float) -> None:
        self._row(terms, value, value)

    def minimise(self, terms: Iterable[Term]) -> None:
        self._costs = list(terms)

    def relax(self) -> float | None:
        """The least objective were no variable whole; None where there is no solution. Values are then those of the
        variables."""
        return self._solve(np.arange(len(self._tops)), whole=False)

    def solve(self, gap: float = 0.0, nodes: int | None = None, without: Iterable[Variable] = ()) -> float | None:
        """The least objective to within a relative `gap`, or the best found after `nodes` branchings; None where
        there is no solution. Values are then those of the variables. Variables in `without` stay zero."""
        kept = np.ones(len(self._tops), dtype=bool)
        kept[list(without)] = False
        limits = {"mip_rel_gap": gap} | ({} if nodes is None else {"node_limit": nodes})
        return self._solve(np.flatnonzero(kept), whole=True, **limits)

    def value(self, variable: Variable) -> float:
        return self._values[variable]

    def count(self, variable: Variable) -> int:
        """The value of an integer variable."""
        return round(self._values[variable])

    def _solve(self, columns: NDArray[np.intp], *, whole: bool, **limits: float) -> float | None:
        size = len(self._tops)
        costs = np.zeros(size)
        for coefficient, variable in self._costs:
            costs[variable] += coefficient
        ends = np.cumsum([0, *map(len, self._rows)], dtype=np.int32)  # HiGHS in older SciPy takes no wider indices
        terms = [term for row in self._rows for term in row]
        data, indices = [c for c, _ in terms], np.array([v for _, v in terms], dtype=np.int32)
        matrix = csr_array((data, indices, ends), shape=(len(self._rows), size))
        matrix.sum_duplicates()  # HiGHS takes no variable twice in a row
        found: OptimizeResult = milp(
            costs[columns],
            integrality=np.array(self._whole)[columns] if whole else None,
            bounds=Bounds(0.0, np.array(self._tops)[columns]),
            constraints=LinearConstraint(matrix[:, columns.astype(np.int32)], self._least, self._most),
            options=limits,
        )
        if found.x is None:
            return None
        values = np.zeros(size)
        values[columns] = found.x
        self._values = values.tolist()
        return float(found.fun)

    def _row(self, terms: Iterable[Term], least: float, most: float) -> None:
        self._rows.append(list(terms))
        self._least.append(least)
        self._most.append(most)

    def _variable(self, top: float, *, whole: bool) -> Variable:
        self._tops.append(top)
        self._whole.append(whole)
        return len(self._tops) - 1
