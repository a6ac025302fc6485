"""Where everything lives: the placement program, solved, or the shortage that keeps it from having a solution."""

from __future__ import annotations

from specsim.planner.problem import Placed, PlacementProblem, Shortage
from specsim.planner.program import GB, PlacementProgram
from specsim.planner.solver import value


def place(problem: PlacementProblem, gap: float = 0.0, nodes: int | None = None) -> Placed | None:
    """The best placement to within a relative `gap` of its time (or the best after `nodes` branchings), or None if
    none fits."""
    model = PlacementProgram(problem, elastic=False)
    if model.program.solve(gap, nodes) is None:
        return None
    return Placed(model.decision(), sum(weight * value(v) for weight, v in model.seconds))


def shortage(problem: PlacementProblem) -> Shortage:
    """By how much the nearest placement misses each budget."""
    model = PlacementProgram(problem, elastic=True)
    model.program.solve(1e-3, 1000)
    missing = {where: value(slack) * GB for where, slack in model.slack.items()}
    return Shortage({where: size for where, size in missing.items() if size > 1.0})
