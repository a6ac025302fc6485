"""Who attends in a pass, and where in an arena what they have cached lies: worked out once, for all layers.

Sequences of about the same size attend together, what they have cached gathered side by side: with a decode step's few
rows, a call to torch costs more than the work in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from executor.architecture import Architecture
from executor.decoder.cache import Segment, SequenceCache
from executor.decoder.numerics import Numerics
from specsim.attending import GATHERED_ELEMENTS, KV_BLOCK, QUERY_TILE

#: FAST gathers sequences of up to so many query tiles, and elements of K each; larger ones attend one by one, where
#: they are. The bound was found with a cache of its own for each sequence (16 of them, decoding on two threads:
#: gathering was faster below it). A prompt's many rows leave no call to save.
FAST_TILES: Final = 4
FAST_GATHERED: Final = 50_000


@dataclass(frozen=True, slots=True)
class Group:
    """n sequences that attend together, c query rows each; one with fewer repeats its last. Positions count from the
    first that is gathered of each."""

    rows: Tensor  # [n c] of the pass
    positions: Tensor  # [n, c] of these rows
    places: Tensor  # [n L] of what is gathered, L whole blocks; beyond a sequence's end its first place again
    run: slice | None  # where a single sequence's places are neighbours: those up to its end
    seen: tuple[slice, ...]  # blocks that the queries of each tile see, all their heads of a KV head in a row


class Batch:
    """The sequences of a pass or a part of it, whose caches are all of one arena. Raises ValueError where they are not,
    or one is too small."""

    def __init__(
        self,
        arch: Architecture,
        numerics: Numerics,
        segments: Sequence[Segment],
        caches: Sequence[SequenceCache],
        device: torch.device,
    ) -> None:
        for segment, cache in zip(segments, caches, strict=True):
            if segment.end > cache.capacity:
                raise ValueError(f"position {segment.end - 1} in a cache of {cache.capacity} positions")
            if cache.arena is not caches[0].arena:
                raise ValueError("caches of different arenas attend together")
        self.arch, self.numerics, self.segments, self.caches, self.device = arch, numerics, segments, caches, device
        #: places of all rows' own positions [T]
        self.written = torch.cat([c.places[s.start : s.end] for s, c in zip(segments, caches, strict=True)]).to(device)
        self._groups: dict[int | None, list[Group]] = {}

    def groups(self, window: int | None) -> list[Group]:
        """All sequences, in groups, for layers with this window."""
        if window not in self._groups:
            members = [_member(self.arch, *pair, window) for pair in zip(self.segments, self.caches, strict=True)]
            alike = _alike(self.arch, self.numerics, members)
            self._groups[window] = [_group(self.arch, some, window, self.device) for some in alike]
        return self._groups[window]


@dataclass(frozen=True, slots=True)
class _Member:
    """A sequence of the batch."""

    segment: Segment
    cache: SequenceCache
    tiles: int  # that its query rows fill
    begin: int  # first position of the first block that any of its queries sees
    blocks: int  # that they see


def _member(arch: Architecture, segment: Segment, cache: SequenceCache, window: int | None) -> _Member:
    begin = _oldest(segment.start, window) // KV_BLOCK * KV_BLOCK
    blocks = -(-(segment.end - begin) // KV_BLOCK)
    return _Member(segment, cache, -(-segment.count * _heads_per_kv(arch) // QUERY_TILE), begin, blocks)


def _alike(arch: Architecture, numerics: Numerics, members: list[_Member]) -> Iterator[list[_Member]]:
    """Sequences that attend together: as many tiles of query rows, and cached blocks within a factor of two."""
    width = arch.model.kv_heads * arch.model.head_dim

    def size(member: _Member) -> tuple[int, int]:
        return member.tiles, member.blocks.bit_length()

    for (tiles, _), alike in itertools.groupby(sorted(members, key=size), size):
        some = list(alike)
        gathered = max(member.blocks for member in some) * KV_BLOCK * width
        at_once = max(1, GATHERED_ELEMENTS // max(gathered, tiles * QUERY_TILE * width))
        if not numerics.exact and (tiles > FAST_TILES or gathered > FAST_GATHERED):
            at_once = 1
        for first in range(0, len(some), at_once):
            yield some[first : first + at_once]


def _group(arch: Architecture, members: list[_Member], window: int | None, device: torch.device) -> Group:
    facts = [(m.segment.first, m.segment.start - m.begin, m.segment.count - 1) for m in members]
    first, start, last = torch.tensor(facts).T[:, :, None]
    new = torch.arange(max(m.segment.count for m in members)).clamp(max=last)  # [n, c]
    positions = start + new
    gathered = [m.cache.places[m.begin : m.segment.end] for m in members]
    places = pad_sequence(gathered, batch_first=True, padding_value=-1)
    places = functional.pad(places, (0, -places.shape[1] % KV_BLOCK), value=-1)
    places = torch.where(places < 0, places[:, :1], places)
    run = members[0].cache.run(members[0].begin, members[0].segment.end)
    whole = len(members) == 1 and run.stop - run.start == len(gathered[0])
    return Group(
        (first + new).flatten().to(device),
        positions.to(device),
        places.flatten().to(device),
        run if whole else None,
        tuple(_seen(positions.repeat_interleave(_heads_per_kv(arch), 1), window)),
    )


def _seen(positions: Tensor, window: int | None) -> Iterator[slice]:
    """Of folded query rows [n, R], the blocks that each tile of them sees."""
    for tile in torch.split(positions, QUERY_TILE, dim=1):
        yield slice(_oldest(int(tile.min()), window) // KV_BLOCK, int(tile.max()) // KV_BLOCK + 1)


def _oldest(position: int, window: int | None) -> int:
    """The first position that a query at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def _heads_per_kv(arch: Architecture) -> int:
    return arch.model.heads // arch.model.kv_heads
