"""Keys and values: a room for those of many sequences, and where in it each sequence has its own.

What a batch reads or writes in a layer is then one operation, however many sequences it has.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
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


class KvArena:
    """`layers`: K and V of every layer, one tensor [2, n_kv, places, d] each. All have the same places taken.

    What no sequence has written since it took a place is never read: not when it is stale, not when it is NaN. Places
    may be taken and given back by several threads.
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        self.layers = tuple(layers)
        self._free = [range(layers[0].shape[2])]  # in rising order, no two of them adjacent
        self._lock = threading.Lock()  # guards it

    @classmethod
    def empty(
        cls,
        arch: Architecture,
        places: int,
        devices: torch.device | Sequence[torch.device] = torch.device("cpu"),  # noqa: B008 (a constant)
    ) -> KvArena:
        """Not yet initialised, on one device or on one per layer."""
        model = arch.model
        each = [devices] * model.layers if isinstance(devices, torch.device) else devices
        shape = (2, model.kv_heads, places, model.head_dim)
        return cls([torch.empty(shape, dtype=arch.dtype, device=device) for device in each])

    @property
    def unused(self) -> bool:
        """Whether all places are free."""
        return sum(map(len, self._free)) == self.layers[0].shape[2]

    def take(self, capacity: int) -> SequenceCache:
        """A cache of `capacity` positions: in one run of places if there is one, else in several. Raises ValueError
        where so many are not free."""
        with self._lock:
            if capacity > (free := sum(map(len, self._free))):
                raise ValueError(f"a cache of {capacity} positions where {free} places are free")
            whole = next((run for run in self._free if len(run) >= capacity), None)
            taken: list[range] = []
            for run in [whole] if whole is not None else list(self._free):
                wanted = min(capacity - sum(map(len, taken)), len(run))
                taken.append(run[:wanted])
                at = self._free.index(run)
                self._free[at : at + 1] = [run[wanted:]] if wanted < len(run) else []
        return SequenceCache(self, tuple(run for run in taken if run))

    def give_back(self, cache: SequenceCache) -> None:
        """The sequence is gone; its places may be taken again."""
        joined: list[range] = []
        with self._lock:
            for run in sorted((*self._free, *cache.runs), key=lambda run: run.start):
                if joined and joined[-1].stop == run.start:
                    joined[-1] = range(joined[-1].start, run.stop)
                else:
                    joined.append(run)
            self._free = joined


class SequenceCache:
    """K and V of one sequence, in `runs` of an arena's places; they grow to the right, and going back is assigning the
    length. `length` positions are valid. `places` [capacity] has the place of each position, int64 on the CPU."""

    def __init__(self, arena: KvArena, runs: tuple[range, ...]) -> None:
        self.arena, self.runs = arena, runs
        self.places = torch.cat([torch.arange(run.start, run.stop) for run in runs] or [torch.arange(0)])
        self.length = 0

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
