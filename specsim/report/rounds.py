"""Rounds of a plan as pictures: one as it is predicted; some in mid-job, predicted above measured.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matplotlib.figure import Figure

from specsim.answer import Plan
from specsim.report.gantt import gantt, panels
from specsim.timeline import Timeline
from specsim.timeline.rounds import cut_rounds, middle_rounds
from specsim.units import show

#: rounds that a picture of a run shows
ROUNDS: Final = 2


def planned(plan: Plan, one: Timeline) -> Figure:
    """One round in mid-job as it is predicted."""
    title = f"One round: {plan.case.target.name} on {plan.case.machine.name}, {plan.decision.strategy}"
    predicted = plan.predicted
    told = f"{predicted.tokens_per_second:.1f} useful tokens/s; {predicted.bottleneck}"
    return gantt(one, title=title, subtitle=told)


def measured(plan: Plan, tokens_per_second: float, timelines: Mapping[str, Timeline]) -> Figure:
    """Rounds in mid-job as the simulator has them for the shapes that they turned out to have, and as they were.

    `timelines` are `predicted` and `measured`, `tokens_per_second` the useful ones that the run made. Raises InputError
    for a run of no rounds.
    """
    first, count = middle_rounds(timelines["measured"], ROUNDS)
    cut = {name: cut_rounds(timeline, first, count) for name, timeline in timelines.items()}
    last = f" to {first + count - 1}" if count > 1 else ""
    title = f"Round {first}{last}: {plan.case.target.name} on {plan.case.machine.name}, {plan.decision.strategy}"
    told = f"{tokens_per_second:.3g} useful tokens/s; {plan.predicted.tokens_per_second:.3g} were planned"
    named = {f"{name}: {show(timeline.makespan, 'seconds')}": timeline for name, timeline in cut.items()}
    return panels(named, title=title, subtitle=told)
