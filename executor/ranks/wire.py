"""A pass on its way between two stages: int64 numbers that say whose rows it has and where their caches lie, and the
rows. The places are the same in the caches of all stages, so that the first one alone gives them out."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.architecture import Architecture
from executor.decoder.cache import KvArena, Room, Segment, SequenceCache
from executor.passes import Pass, Rows
from executor.ranks.world import Channel
from specsim.decision import LayerPlacement


def send_pass(channel: Channel, p: Pass) -> int:
    """To the next stage; returns the bytes of it."""
    numbers = [len(p.segments), len(p.micro)]
    for segment, cache in zip(p.segments, p.caches, strict=True):
        numbers += [segment.count, segment.start, len(cache.runs)]
        numbers += [place for run in cache.runs for place in (run.start, run.stop)]
    for rows in p.micro:
        numbers += [rows.sequences.stop, rows.rows.stop]
    sent = channel.send(torch.tensor([len(numbers)])) + channel.send(torch.tensor(numbers))
    return sent + send_rows(channel, p)


def send_rows(channel: Channel, p: Pass) -> int:
    """Only these; returns their bytes."""
    sent = channel.send(torch.tensor([p.rows.stop]))
    return sent + (0 if p.empty else channel.send(p.hidden))


def receive_rows(channel: Channel, arch: Architecture, device: torch.device) -> Tensor:
    """[T, h] on `device`."""
    (count,) = channel.receive((1,), torch.int64).tolist()
    shape = (count, arch.model.hidden)
    return channel.receive(shape, arch.dtype, device) if count else torch.empty(shape, dtype=arch.dtype)


def receive_pass(channel: Channel, arena: KvArena, layers: tuple[LayerPlacement, ...]) -> Pass:
    """From the stage before, but its rows, which come next."""
    (count,) = channel.receive((1,), torch.int64).tolist()
    numbers = iter(channel.receive((count,), torch.int64).tolist())
    sequences, micro_batches = next(numbers), next(numbers)
    segments: list[Segment] = []
    caches: list[SequenceCache] = []
    positions: list[int] = []
    for _ in range(sequences):
        rows, start, runs = next(numbers), next(numbers), next(numbers)
        segments.append(Segment(len(positions), rows, start))
        caches.append(SequenceCache(arena, Room([range(next(numbers), next(numbers)) for _ in range(runs)])))
        positions += range(start, start + rows)
    micro: list[Rows] = []
    before = Rows(slice(0, 0), slice(0, 0))
    for _ in range(micro_batches):
        before = Rows(slice(before.sequences.stop, next(numbers)), slice(before.rows.stop, next(numbers)))
        micro.append(before)
    return Pass(layers, segments, caches, micro, torch.tensor(positions, dtype=torch.int64))
