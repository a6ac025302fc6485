"""The keys and values of one sequence: they grow to the right, and going back is assigning the length."""

from __future__ import annotations

import itertools
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


class SequenceCache:
    """K and V of one sequence, [n_kv, capacity, d] per layer, allocated once, on one device or on one per layer.

    `length` positions are valid. What lies behind them is never read: not when it is stale, not when it is NaN.
    """

    def __init__(
        self,
        arch: Architecture,
        capacity: int,
        devices: torch.device | Sequence[torch.device] = torch.device("cpu"),  # noqa: B008 (a constant)
    ) -> None:
        model = arch.model
        each = [devices] * model.layers if isinstance(devices, torch.device) else devices
        shape = (model.kv_heads, capacity, model.head_dim)
        self.capacity = capacity
        self.length = 0
        self._layers = [
            (torch.empty(shape, dtype=arch.dtype, device=device), torch.empty(shape, dtype=arch.dtype, device=device))
            for device in each
        ]

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """K and V of one layer, each [n_kv, capacity, d]."""
        return self._layers[layer]

    def tensors(self) -> Iterator[Tensor]:
        """K and V of every layer in turn."""
        return itertools.chain.from_iterable(self._layers)


def write(cache: tuple[Tensor, Tensor], k: Tensor, v: Tensor, segment: Segment) -> None:
    """Store a segment's k and v, each [count, n_kv, d], at its positions. Storing them again changes nothing.

    Raises ValueError where the cache is too small (a short slice would take a single row silently).
    """
    capacity = cache[0].shape[1]
    if segment.end > capacity:
        raise ValueError(f"position {segment.end - 1} in a cache of {capacity} positions")
    for cached, new in zip(cache, (k, v), strict=True):
        cached[:, segment.start : segment.end] = new.transpose(0, 1)
