"""A workload: how many requests there are, how long their prompts are, and how many tokens each one wants."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specsim.errors import InputError

#: seed of the arrival order, which must not be sorted by length
_ORDER: Final = 20250515
#: of requests, and of tokens of each: lists are made of the former
MOST: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Workload:
    """Raises InputError unless all numbers are positive and min <= mean <= max."""

    name: str
    title: str
    prompt_tokens_mean: float
    prompt_tokens_max: int
    prompt_tokens_min: int
    output_tokens: int
    requests: int

    def __post_init__(self) -> None:
        where = f"workload {self.name}"
        for key in ("prompt_tokens_min", "prompt_tokens_max", "output_tokens", "requests"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} is {getattr(self, key)}", where=where, hint="give 1 or more")
            if getattr(self, key) > MOST:
                raise InputError(f"{key} is {getattr(self, key)}", where=where, hint=f"give {MOST} or less")
        if not self.prompt_tokens_min <= self.prompt_tokens_mean <= self.prompt_tokens_max:
            order = f"{self.prompt_tokens_min}, {self.prompt_tokens_mean:g}, {self.prompt_tokens_max}"
            raise InputError(f"prompt tokens min, mean, max are {order}", where=where, hint="they must rise")


@lru_cache(maxsize=64)
def prompt_lengths(workload: Workload) -> NDArray[np.int64]:
    """Prompt tokens of each request, shape [requests], in arrival order; the same on every call.

    Of a data set usually mean and maximum are published, no more, so lengths follow the quantile function
    L(u) = min + (max - min) u^k at u = (i + 0.5) / n. Its mean over u is min + (max - min) / (k + 1), hence
    k = (max - min) / (mean - min) - 1. The sum is rounded to the nearest whole token of requests * mean.
    """
    low, high = workload.prompt_tokens_min, workload.prompt_tokens_max
    mean, n = workload.prompt_tokens_mean, workload.requests
    if mean in (low, high):  # no spread on one side leaves none on the other
        return _frozen(_whole(np.full(n, float(mean)), n * mean))
    u = (np.arange(n) + 0.5) / n
    k = (high - low) / (mean - low) - 1
    lengths = _whole(low + (high - low) * u**k, n * mean)
    return _frozen(np.random.default_rng(_ORDER).permutation(np.clip(lengths, low, high)))


def _frozen(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    lengths.flags.writeable = False  # every caller gets the same array
    return lengths


def _whole(lengths: NDArray[np.float64], total: float) -> NDArray[np.int64]:
    """Round to whole tokens whose sum stays `total`: the rounding error is carried along, from short to long.

    Sampling u at n midpoints misses the integral a little; that shortfall is spread evenly before rounding.
    """
    ends = np.rint(np.cumsum(lengths + (total - lengths.sum()) / lengths.size))
    steps: NDArray[np.int64] = np.diff(ends, prepend=0.0).astype(np.int64)
    return steps
