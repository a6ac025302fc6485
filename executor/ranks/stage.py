"""A rank's place in a run: which layers it has, whom it gets rows from, and to whom it hands them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from executor.ranks.messages import Order, tell
from executor.ranks.part import Part
from executor.ranks.world import Channel, World
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.partition import stage_layers


@dataclass(frozen=True, slots=True)
class Stage:
    """`announce` tells all other ranks what is lowered next; rank 0 alone has anything to tell. `back` and `on` lead to
    the stages before and after, and around from the last one to the first."""

    part: Part
    layers: range
    announce: Callable[[Order], None]
    back: Channel | None = None
    on: Channel | None = None

    @property
    def first(self) -> bool:
        """Whether this stage also embeds, drafts and commits."""
        return self.part.rank == 0

    @property
    def last(self) -> bool:
        return self.part.rank == self.part.ranks - 1


def stage_of(plan: Plan, world: World | None) -> Stage:
    """Raises InputError where there are not as many ranks as the plan has stages, and where it splits layers."""
    stages, ranks = plan.decision.policy.stages, world.ranks if world is not None else 1
    if plan.decision.policy.tensor > 1:
        what = f"the plan splits each layer over {plan.decision.policy.tensor} devices, which cannot be run"
        raise InputError(what, where="run", hint="plan again with --fix tensor=1")
    if stages != ranks:
        hint = f"start it as torchrun --nproc-per-node {stages} -m specsim run ..."
        raise InputError(f"the plan has {stages} stages, and {ranks} ranks run", where="run", hint=hint)
    if world is None:
        return Stage(Part(0, 1), range(plan.case.target.layers), lambda _: None)
    layers = stage_layers(plan.case.target, stages)[world.rank]

    def announce(order: Order) -> None:
        for channel in world.desks.values():
            tell(channel, order)

    return Stage(Part(world.rank, ranks), layers, announce, world.back, world.on)
