"""The graph of a job as it grows: waves and rounds are lowered as they come, and submitted to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from executor.engine import Engine
from executor.taskruns import Action
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext
from executor.tasks.table import action
from specsim.answer import Plan
from specsim.decision import Decision, LayerPlacement
from specsim.schedule.graph import Builder, parse
from specsim.schedule.lower import append_prefill, append_round, builder
from specsim.schedule.round import RoundShape, RoundState

#: at most so many rounds are under way at a time
_UNDER_WAY = 3


@dataclass(slots=True, eq=False)
class Lowering:
    """Every rank of a run lowers all of the graph, and submits its own part of it. What tasks do, they do with
    `context` and `drafts`. `placements` gets what the last few rounds were lowered with."""

    plan: Plan
    engine: Engine
    context: Context
    drafts: DraftContext | None
    placements: dict[int, tuple[LayerPlacement, ...]]
    builder: Builder = field(init=False)
    state: RoundState = field(init=False)

    def __post_init__(self) -> None:
        self.builder = builder(self.plan.decision)

    def prefill(
        self, decision: Decision, lengths: Sequence[int], first_sweep: int, others: Sequence[int] = ()
    ) -> list[int]:
        """The prefill of a wave, which takes over `others`; returns the engine's numbers of the tasks that end it."""
        ends = append_prefill(self.builder, self.plan.case, decision, lengths, (), first_sweep, others)
        self.state = RoundState.after(ends, decision)
        self.submit()
        return self.context.stage.part.here(ends)

    def round(self, decision: Decision, number: int, shape: RoundShape) -> list[int]:
        """One more round of the wave; returns the tasks that end it, likewise."""
        low = append_round(self.builder, self.plan.case, decision, shape, number, self.state)
        self.placements[number] = low.layers()
        self.placements.pop(number - _UNDER_WAY, None)
        self.submit()
        return self.context.stage.part.here(self.builder.round_ends[-1])

    def submit(self) -> None:
        """What has been lowered since."""
        tasks = self.context.stage.part.take(self.builder.take())
        names = [parse(task.name) for task in tasks]
        actions: list[Action] = [
            action(self.context, self.drafts, name, task) for name, task in zip(names, tasks, strict=True)
        ]
        self.engine.submit(tasks, actions)
