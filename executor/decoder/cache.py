"""Keys and values: a room for those of many sequences, and where in it each sequence has its own.

What a batch reads or writes in a layer is then one operation, however many sequences it has. A sequence takes places as
it grows, and any place will do: none is lost to gaps, and what is free can be counted in positions.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of one sequence in a packed batch."""

    first: int  # its first row
    count: int  # its rows
    start: int  # position of the first row = cached positions before it

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.count)

    @property
    def end(self) -> int:
        """Cached positions once these rows are written."""
        return self.start + self.count


class Pool:
    """Which of so many places are free. They may be taken and given back by several threads."""

    def __init__(self, places: int) -> None:
        self._free = [range(places)] if places else []  # in rising order, no two of them adjacent
        self._lock = threading.Lock()  # guards it

    @property
    def free(self) -> int:
        return sum(map(len, self._free))

    def take(self, count: int, beside: int | None = None) -> list[range]:
        """So many places: from `beside` on where that is free, else in one run if there is one, else in several. Raises
        ValueError where so many are not free."""
        taken: list[range] = []
        with self._lock:
            if count > self.free:
                raise ValueError(f"{count} positions for a cache where {self.free} places are free")
            while count:
                at = self._best(count, beside)
                run = self._free[at]
                taken.append(run[:count])
                self._free[at : at + 1] = [run[count:]] if count < len(run) else []
                count -= len(taken[-1])
        return taken

    def _best(self, count: int, beside: int | None) -> int:
        runs = list(enumerate(self._free))
        neighbours = (at for at, run in runs if run.start == beside)
        whole = (at for at, run in runs if len(run) >= count)
        return next(itertools.chain(neighbours, whole, (0,)))

    def give_back(self, runs: Sequence[range]) -> None:
        with self._lock:
            self._free = _join(sorted([*self._free, *runs], key=lambda run: run.start))


class Room:
    """The places of one sequence, in every arena that shares a pool; it may grow to the right. `runs` has them in the
    order of the positions, `places` [capacity] one by one, int64 on the CPU."""

    def __init__(self, runs: Sequence[range]) -> None:
        self.runs = tuple(runs)
        self.places = torch.cat([torch.arange(run.start, run.stop) for run in runs] or [torch.arange(0)])

    def add(self, runs: Sequence[range]) -> None:
        """What has a place keeps it: whoever reads the older runs meanwhile finds it there."""
        grown = Room(_join([*self.runs, *runs]))
        self.runs, self.places = grown.runs, grown.places

    def cut(self, capacity: int) -> list[range]:
        """Keep the first `capacity` places; returns the others."""
        kept: list[range] = []
        given: list[range] = []
        for run in self.runs:
            mine = max(0, min(len(run), capacity - sum(map(len, kept))))
            kept.append(run[:mine])
            given.append(run[mine:])
        self.runs, self.places = tuple(run for run in kept if run), self.places[:capacity].clone()
        return [run for run in given if run]


class KvArena:
    """`layers`: K and V of every layer, one tensor [2, n_kv, places, d] each. All have the same places taken, and so
    have all arenas with the same `pool`.

    What no sequence has written since it took a place is never read: not when it is stale, not when it is NaN.
    """

    def __init__(self, layers: Sequence[Tensor], pool: Pool | None = None) -> None:
        self.layers = tuple(layers)
        self.pool = pool or Pool(layers[0].shape[2])

    @classmethod
    def empty(
        cls,
        arch: Architecture,
        places: int,
        devices: torch.device | Sequence[torch.device] = torch.device("cpu"),  # noqa: B008 (a constant)
        pool: Pool | None = None,
    ) -> KvArena:
        """Not yet initialised, on one device or on one per layer."""
        model = arch.model
        each = [devices] * model.layers if isinstance(devices, torch.device) else devices
        shape = (2, model.kv_heads, places, model.head_dim)
        return cls([torch.empty(shape, dtype=arch.dtype, device=device) for device in each], pool)

    def take(self, capacity: int) -> SequenceCache:
        """A cache of `capacity` positions. Raises ValueError where so many are not free."""
        return SequenceCache(self, Room(self.pool.take(capacity)))

    def grow(self, cache: SequenceCache, count: int) -> None:
        """Give a cache `count` more positions, neighbours of its last ones if they are free. Raises ValueError where so
        many are not."""
        cache.room.add(self.pool.take(count, cache.runs[-1].stop if cache.runs else None))

    def shrink(self, cache: SequenceCache, capacity: int) -> None:
        """Take from a cache all positions after the first `capacity`."""
        self.pool.give_back(cache.room.cut(capacity))

    def give_back(self, cache: SequenceCache) -> None:
        """The sequence is gone; its places may be taken again."""
        self.pool.give_back(cache.runs)


class SequenceCache:
    """K and V of one sequence, in a `room` of an arena's places; they grow to the right, and going back is assigning
    the length. `length` positions are valid."""

    def __init__(self, arena: KvArena, room: Room) -> None:
        self.arena, self.room = arena, room
        self.length = 0

    @property
    def runs(self) -> tuple[range, ...]:
        return self.room.runs

    @property
    def places(self) -> Tensor:
        return self.room.places

    @property
    def capacity(self) -> int:
        return len(self.places)

    def run(self, begin: int, end: int) -> slice:
        """The places of positions from `begin` on, up to `end` or to where they stop being neighbours."""
        for run in self.runs:
            if begin < len(run):
                return slice(run.start + begin, run.start + min(end, len(run)))
            begin, end = begin - len(run), end - len(run)
        raise ValueError(f"{begin + 1} positions behind the end of a cache")


def alone(arch: Architecture, capacity: int, device: torch.device = torch.device("cpu")) -> SequenceCache:  # noqa: B008
    """The cache of a sequence that has an arena to itself."""
    return KvArena.empty(arch, capacity, device).take(capacity)


def shared_runs(a: SequenceCache, b: SequenceCache, begin: int, end: int) -> Iterator[tuple[slice, slice]]:
    """Positions from `begin` to `end` of two caches: places in the one and in the other, neighbours in both."""
    while begin < end:
        here, there = a.run(begin, end), b.run(begin, end)
        count = min(here.stop - here.start, there.stop - there.start)
        yield slice(here.start, here.start + count), slice(there.start, there.start + count)
        begin += count


def _join(runs: Iterable[range]) -> list[range]:
    """The same places in the same order, with those that follow one another in one run."""
    out: list[range] = []
    for run in runs:
        if out and out[-1].stop == run.start:
            out[-1] = range(out[-1].start, run.stop)
        else:
            out.append(run)
    return out
