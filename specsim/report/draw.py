"""The picture of an answer, whatever it is: what each command draws, for a notebook.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from typing import Final

from matplotlib.figure import Figure

from specsim.answer import Plan
from specsim.api import Answer, Validation, simulate
from specsim.errors import InputError, UnknownNameError
from specsim.planner.ablation import Ablation
from specsim.planner.compare import Comparison
from specsim.report import breakeven, budget, pictures, rounds, sweep, upgrades
from specsim.report.memory import memory_picture
from specsim.report.roofline import roofline
from specsim.whatif.breakeven import BreakEvenMap
from specsim.whatif.budget import MemoryCurve
from specsim.whatif.sweep import Sweep
from specsim.whatif.upgrade import Upgrades

#: pictures of a plan
VIEWS: Final = ("timeline", "memory", "roofline")


def draw(answer: Answer, view: str) -> Figure:
    """See `specsim.api.draw`."""
    if view not in VIEWS:
        raise UnknownNameError("view", view, VIEWS, where="draw")
    match answer:
        case Plan() if view == "memory":
            return memory_picture(answer)
        case Plan() if view == "roofline":
            return roofline(answer, simulate(answer))
        case Plan():
            return rounds.planned(answer, simulate(answer).round)
        case Comparison():
            return pictures.comparison(answer)
        case Ablation():
            return pictures.ablations([answer])
        case Sweep():
            return sweep.picture(answer)
        case Upgrades():
            return upgrades.draw(answer)
        case BreakEvenMap():
            return breakeven.draw(answer)
        case MemoryCurve():
            return budget.draw(answer)
        case Validation():
            return rounds.measured(answer.plan, answer.comparison.measured, answer.timelines)
    what = f"{type(answer).__name__} has no picture"
    raise InputError(what, where="draw", hint="give what plan, compare, sweep and the like return")
