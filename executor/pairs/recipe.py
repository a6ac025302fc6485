"""Tensors of any size that are never held: a recipe says how each is summed from streams of pseudo-random numbers.

The numbers depend only on the seed and the stream's name, so that two models that name one stream share its values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from executor.architecture import TORCH_DTYPE

CHUNK = 1 << 18  # values that are made at a time: they stay in a core's cache


@dataclass(frozen=True, slots=True)
class Recipe:
    """constant + sum of weight x stream, elementwise; a stream's values are uniform with mean 0 and variance 1."""

    shape: tuple[int, ...]
    terms: tuple[tuple[float, str], ...] = ()
    constant: float = 0.0

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def chunks(recipe: Recipe, seed: int, dtype: str) -> Iterator[bytes]:
    """The tensor's bytes in `dtype`, little-endian and row by row, at most CHUNK values at a time."""
    for index, first in enumerate(range(0, recipe.elements, CHUNK)):
        values = np.full(min(CHUNK, recipe.elements - first), recipe.constant, np.float32)
        for weight, stream in recipe.terms:
            values += np.float32(weight) * _uniform(seed, stream, index, len(values))
        yield torch.from_numpy(values).to(TORCH_DTYPE[dtype]).view(torch.uint8).numpy().tobytes()


def _uniform(seed: int, stream: str, index: int, count: int) -> NDArray[np.float32]:
    """The first `count` values of a stream's chunk. Uniform, not normal: it is quicker, and sums look the same."""
    key = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    unit = np.random.Generator(np.random.SFC64(int.from_bytes(key, "little"))).random(count, np.float32)
    return (unit - np.float32(0.5)) * np.float32(math.sqrt(12))
