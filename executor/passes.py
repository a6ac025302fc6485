"""One batch on its way through the target's layers: packed rows, and what travels between the tasks of a layer.

Prefill and verify are the same walk. Every sequence brings the tokens that its cache lacks (a prompt, or the last
token) and what was proposed to follow them; logits are wanted from the last of its own tokens on. One whose cache was
lost brings what it had cached, and wants none.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from executor.decoder.batch import Batch
from executor.decoder.blocks import Dispatch, Routing
from executor.decoder.cache import Segment, SequenceCache
from executor.decoder.rope import Rotation
from executor.sequence import Sequence
from specsim.decision import LayerPlacement
from specsim.schedule.sweeps import deal


@dataclass(frozen=True, slots=True)
class Rows:
    """The sequences of one micro-batch, and their rows."""

    sequences: slice
    rows: slice

    @property
    def empty(self) -> bool:
        return bool(self.rows.start == self.rows.stop)


@dataclass(slots=True, eq=False)
class Routed:
    """What the FFN of a layer reads: normalised rows [T, h], and the experts that each goes to."""

    normed: Tensor
    routing: Routing | None


@dataclass(slots=True, eq=False)
class Added:
    """What a processor's parts of a layer's FFN have added up, [T, h], and whom its tokens are sent to."""

    layer: int
    sent: Dispatch | None
    rows: Tensor


@dataclass(slots=True, eq=False)
class Pass:
    """`layers` is the placement that the pass was lowered with; the rows of a micro-batch are neighbours. The output of
    a layer's FFN adds up on each processor that has parts of it, and joins `hidden` when the next layer reads it.
    `sequences` and `ids` are known to the stage that embeds and commits."""

    layers: tuple[LayerPlacement, ...]
    segments: list[Segment]
    caches: list[SequenceCache]  # of each segment
    micro: list[Rows]
    positions: Tensor  # [T] int64
    sequences: list[Sequence] = field(default_factory=list)
    ids: Tensor = field(default_factory=lambda: torch.empty(0))  # [T] int64
    hidden: Tensor = field(default_factory=lambda: torch.empty(0))  # [T, h] where the main processor computes
    routed: Routed | None = None
    outputs: dict[str, Added] = field(default_factory=dict)  # by processor, of the last layer that it had parts of
    between: dict[tuple[str, int | None], Any] = field(default_factory=dict)  # what a task leaves for the next
    # What all layers share, by micro-batch and device: how positions turn; who attends, to caches at home or visiting.
    rotations: dict[tuple[int | None, torch.device], Rotation] = field(default_factory=dict)
    batches: dict[tuple[int | None, torch.device, bool], Batch] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.segments

    @property
    def rows(self) -> slice:
        """All of them."""
        return slice(0, len(self.positions))

    @property
    def head_rows(self) -> list[range]:
        """The rows of each sequence that need logits."""
        return [
            range(s.first + s.count - sequence.decisions, s.first + s.count)
            for s, sequence in zip(self.segments, self.sequences, strict=True)
        ]

    def put(self, rows: slice, normed: Tensor, routing: Routing | None) -> None:
        """A micro-batch is through the attention."""
        whole = self.routed
        if whole is None:
            whole = self.routed = Routed(torch.empty_like(self.hidden), None)
        whole.normed[rows] = normed
        if routing is None:
            whole.routing = None
            return
        if whole.routing is None:
            shape = (self.rows.stop, routing.experts.shape[1])
            whole.routing = Routing(routing.experts.new_empty(shape), routing.weights.new_empty(shape))
        whole.routing.experts[rows] = routing.experts
        whole.routing.weights[rows] = routing.weights


def pack(layers: tuple[LayerPlacement, ...], sequences: Many[Sequence], micro_batches: int) -> Pass:
    """The pass of `sequences`, its rows not yet embedded."""
    feeds = [s.feed for s in sequences]
    lengths = [s.cache.length + len(feed) for s, feed in zip(sequences, feeds, strict=True)]
    ids: list[int] = []
    positions: list[int] = []
    ordered: list[Sequence] = []
    segments: list[Segment] = []
    micro: list[Rows] = []
    for share in deal(lengths, micro_batches):
        first_sequence, first_row = len(ordered), len(ids)
        for i in share:
            start = sequences[i].cache.length
            segments.append(Segment(len(ids), len(feeds[i]), start))
            ids += feeds[i]
            positions += range(start, lengths[i])
            ordered.append(sequences[i])
        micro.append(Rows(slice(first_sequence, len(ordered)), slice(first_row, len(ids))))
    caches = [sequence.cache for sequence in ordered]
    return Pass(layers, segments, caches, micro, torch.tensor(positions), ordered, torch.tensor(ids))
