"""Tiny models, and sequences that are fed to them in packed batches: what the decoder's tests are told with."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Sequence

import torch
from torch import Tensor

from executor.decoder.cache import KvArena, Segment, SequenceCache
from executor.decoder.numerics import EXACT, FAST
from executor.decoder.resident import ResidentModel, load_resident
from tests.executor import checkpoints

Feed = tuple[SequenceCache, list[int]]


@functools.cache
def load(family: str, numerics: str = "exact", dtype: str = "float32") -> ResidentModel:
    """The model that `checkpoints.build(family, dtype=dtype)` is, from its files."""
    with tempfile.TemporaryDirectory() as directory:
        return load_resident(checkpoints.make(family, directory, dtype=dtype), {"exact": EXACT, "fast": FAST}[numerics])


def tokens(count: int, seed: int = 0) -> list[int]:
    """Any tokens but the end token, 2."""
    return torch.randint(3, 96, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def poisoned(model: ResidentModel, count: int, capacity: int = 400) -> list[SequenceCache]:
    """Empty caches of one arena in whose memory lies NaN, as may in any memory."""
    arena = KvArena.empty(model.arch, count * capacity)
    for kv in arena.layers:
        kv.fill_(torch.nan)
    return [arena.take(capacity) for _ in range(count)]


def feed(model: ResidentModel, *feeds: Feed) -> Sequence[Tensor]:
    """One pass over some tokens more of each sequence: the logits [n, V] of all of them."""
    ids = [token for _, new in feeds for token in new]
    segments, first = [], 0
    for cache, new in feeds:
        segments.append(Segment(first, len(new), cache.length))
        first += len(new)
    logits = model.forward(torch.tensor(ids), segments, [cache for cache, _ in feeds], torch.arange(len(ids)))
    for (cache, _), segment in zip(feeds, segments, strict=True):
        cache.length = segment.end
    return torch.split(logits, [segment.count for segment in segments])


def stepwise(model: ResidentModel, text: list[int], *counts: int) -> tuple[Tensor, SequenceCache]:
    """The logits of a sequence alone, fed so many tokens at a time, and its cache."""
    (cache,) = poisoned(model, 1)
    assert sum(counts) == len(text)
    parts = torch.tensor([0, *counts]).cumsum(0).tolist()
    logits = [feed(model, (cache, text[a:b]))[0] for a, b in itertools.pairwise(parts)]
    return torch.cat(logits), cache


def valid(cache: SequenceCache) -> list[Tensor]:
    """What a cache holds: K and V of every layer, [2, n_kv, length, d]."""
    return [kv[:, :, cache.places[: cache.length]] for kv in cache.arena.layers]
