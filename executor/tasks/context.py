"""What all tasks of a run share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from executor.architecture import Architecture
from executor.checkpoint.layout import Layout
from executor.decoder.cache import Segment, SequenceCache
from executor.decoder.numerics import Numerics
from executor.devices import Devices
from executor.homes import Homes
from executor.links import Link
from executor.passes import Pass, Rows
from executor.ranks.stage import Stage
from executor.rings import Rings
from specsim.schedule.graph import Slot, TaskName


@dataclass(frozen=True, slots=True)
class Visitor:
    """The caches of a micro-batch that live in RAM, and where K and V of one layer are in VRAM now: in an arena that
    has this layer only."""

    segments: Sequence[Segment]
    homes: Sequence[SequenceCache]
    staged: Sequence[SequenceCache]


@dataclass(slots=True, eq=False)
class Context:
    """`passes` are by visit, such as "verify.0/A". `open_pass` makes one when its first task runs; `close_pass` takes
    it at its end; `live` says whether a visit still has anything to do. On all stages but the first, what the stage
    before sends opens a pass."""

    stage: Stage
    arch: Architecture
    numerics: Numerics
    devices: Devices
    homes: Homes
    rings: Rings
    link: Link
    embedding: Tensor  # [V, h] in RAM
    open_pass: Callable[[TaskName], Pass]
    close_pass: Callable[[TaskName, Pass], None]
    live: Callable[[TaskName], bool]
    enter: Callable[[str], None]  # a phase of the memory's plan
    chunk_tokens: int  # of a pass, in an FFN at once
    staging: dict[Slot, Tensor] = field(default_factory=dict)  # buffers for K and V that visit VRAM
    visitors: dict[tuple[str, int, int | None], Visitor] = field(default_factory=dict)  # by visit, layer, micro-batch
    passes: dict[str, Pass] = field(default_factory=dict)
    reads: dict[str, tuple[Slot, Layout]] = field(default_factory=dict)  # by name of the task that read

    def micro(self, name: TaskName) -> tuple[Pass, Rows]:
        """The pass of a task, and its micro-batch."""
        p = self.passes[visit(name)]
        return p, p.micro[name.micro or 0]


def visit(name: TaskName, batch: str | None = None) -> str:
    return f"{name.phase}.{name.round}/{batch or name.batch}"


def layer_of(name: TaskName) -> int:
    return int(name.site[1:])
