"""From stages to seconds: every pass is laid, priced and run by the event engine."""

from __future__ import annotations

from collections.abc import Sequence

from specsim.case import Case
from specsim.hardware import Machine
from specsim.schedule.graph import Graph
from specsim.simulator import pricing
from specsim.systems.layers import Pass
from specsim.systems.system import Job, Stage


def stage_graphs(case: Case, stage: Stage) -> tuple[Graph, ...]:
    """The tasks of a pass at each of the stage's shapes."""
    graphs = []
    for shape in stage.shapes:
        laid = Pass(case, stage.phase, shape)
        stage.lay(laid)
        graphs.append(laid.graph())
    return tuple(graphs)


def pass_seconds(graphs: tuple[Graph, ...], machine: Machine) -> float:
    """Mean seconds of a pass."""
    return sum(max(pricing.run(graph, machine)[1]) for graph in graphs) / len(graphs)


def phase_seconds(job: Job, graphs: Sequence[tuple[Graph, ...]], machine: Machine) -> dict[str, float]:
    """Seconds that a job, whose stages are laid as `graphs`, spends in "prefill" and in "decode"."""
    seconds = {"prefill": 0.0, "decode": 0.0}
    for stage, passes in zip(job.stages, graphs, strict=True):
        seconds[stage.phase] += stage.times * pass_seconds(passes, machine)
    return seconds
