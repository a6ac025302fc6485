"""Causal attention of packed rows over each sequence's cache, grouped query heads folded into rows of their KV head.

Folding makes one product per KV head of what would be one per query head, and copies no cache.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from executor.architecture import Architecture
from executor.decoder.cache import Segment, write
from executor.decoder.numerics import Numerics

#: positions whose queries attend at once in FAST: enough for full speed, few enough to skip most of what is masked
QUERY_CHUNK: Final = 128
#: scores (and so masks) of one KV head in a chunk: 64 MB in float32
MAX_SCORES: Final = 16_000_000


def attend(
    arch: Architecture,
    numerics: Numerics,
    layer: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segments: Sequence[Segment],
    caches: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """Writes k and v [T, n_kv, d] into the layer's caches, one (K, V) of [n_kv, capacity, d] per segment, then lets
    the queries [T, n_q, d] attend to their own and all earlier positions (in the layer's window): [T, n_q d]."""
    window = arch.windows[layer]
    heads = torch.empty_like(q)
    for segment, cache in zip(segments, caches, strict=True):
        rows = segment.rows
        write(cache, k[rows], v[rows], segment)
        core = _fast if numerics.kv_block is None else functools.partial(_exact, numerics)
        heads[rows] = core(q[rows], *cache, segment.start, window)
    return heads.flatten(1)


def _fast(q: Tensor, keys: Tensor, values: Tensor, start: int, window: int | None) -> Tensor:
    """Of one sequence's queries [c, n_q, d] from position `start` on: [c, n_q, d]."""
    group = q.shape[1] // keys.shape[0]
    chunk = max(1, min(QUERY_CHUNK, MAX_SCORES // (group * (start + q.shape[0]))))
    heads = torch.empty_like(q)
    for first in range(0, q.shape[0], chunk):
        part = q[first : first + chunk]
        begin, end = start + first, start + first + part.shape[0]
        seen = slice(_oldest(begin, window), end)
        mask = None
        if part.shape[0] > 1:
            positions = torch.arange(begin, end, device=q.device).repeat_interleave(group)
            mask = _visible(positions[:, None], torch.arange(seen.start, end, device=q.device), window)
        rows = _fold(part, keys.shape[0])
        out = functional.scaled_dot_product_attention(
            rows[None], keys[None, :, seen], values[None, :, seen], attn_mask=mask
        )
        heads[first : first + chunk] = _unfold(out[0], group)
    return heads


def _exact(numerics: Numerics, q: Tensor, keys: Tensor, values: Tensor, start: int, window: int | None) -> Tensor:
    """As `_fast`, in tiles of one shape, query rows by cached positions, in float32.

    A query's maximum is exact; of each block it takes a product and a sum of fixed shape, and adds up the blocks in
    order. A block that it does not see gives exact zeros, so that it does not matter which others are there.
    """
    tile, block = numerics.query_tile, numerics.kv_block
    assert tile is not None
    assert block is not None
    kv_heads, head_dim = keys.shape[0], q.shape[2]
    group, end = q.shape[1] // kv_heads, start + q.shape[0]
    base = _oldest(start, window) // block  # the first block that any query sees
    k, v = (_blocks(cached[:, base * block : end], block) for cached in (keys, values))
    rows = _fold(q.float() * head_dim**-0.5, kv_heads)
    out = torch.empty_like(rows)
    for first in range(0, rows.shape[1], tile):
        part = rows[:, first : first + tile]
        count = part.shape[1]
        part = functional.pad(part, (0, 0, 0, tile - count))  # rows beyond the last are computed and dropped
        oldest, newest = start + first // group, start + (first + count - 1) // group
        low, high = _oldest(oldest, window) // block, newest // block + 1
        many = (high - low) * kv_heads
        scores = torch.bmm(
            part.expand(high - low, *part.shape).reshape(many, tile, head_dim),
            k[low - base : high - base].flatten(0, 1).transpose(1, 2),
        ).view(high - low, kv_heads, tile, block)
        positions = (start + torch.arange(first, first + tile, device=q.device) // group).clamp(max=newest)
        cached = torch.arange(low * block, high * block, device=q.device).view(-1, 1, 1, block)
        scores.masked_fill_(~_visible(positions[:, None], cached, window), -torch.inf)
        weights = torch.exp(scores - scores.amax((0, 3), keepdim=True))
        sums = torch.bmm(weights.flatten(0, 1), v[low - base : high - base].flatten(0, 1)).view(*scores.shape[:3], -1)
        blocks = torch.cat((sums, weights.sum(-1, keepdim=True)), dim=-1)  # [blocks, n_kv, tile, d + 1]
        total = functools.reduce(torch.add, blocks.unbind())
        out[:, first : first + count] = (total[..., :-1] / total[..., -1:])[:, :count]
    return _unfold(out, group).to(q.dtype)


def _blocks(cached: Tensor, block: int) -> Tensor:
    """Cached [n_kv, S, d] as float32 blocks [ceil(S / block), n_kv, block, d], zeros behind S."""
    kv_heads, positions, head_dim = cached.shape
    whole, rest = divmod(positions, block)
    blocks = cached.new_empty((whole + (rest > 0), kv_heads, block, head_dim), dtype=torch.float32)
    blocks[:whole] = cached[:, : whole * block].view(kv_heads, whole, block, head_dim).transpose(0, 1)
    if rest:
        blocks[whole, :, :rest] = cached[:, whole * block :]
        blocks[whole, :, rest:] = 0
    return blocks


def _oldest(position: int, window: int | None) -> int:
    """The first position that a query at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def _visible(queries: Tensor, cached: Tensor, window: int | None) -> Tensor:
    """Which cached positions each query's position sees."""
    causal = cached <= queries
    return causal if window is None else causal & (cached > queries - window)


def _fold(q: Tensor, kv_heads: int) -> Tensor:
    """[c, n_q, d] -> [n_kv, c g, d]: the g query heads of a KV head at a position are neighbouring rows."""
    return q.view(q.shape[0], kv_heads, -1, q.shape[2]).transpose(0, 1).flatten(1, 2)


def _unfold(rows: Tensor, group: int) -> Tensor:
    """[n_kv, c g, d] -> [c, n_q, d]."""
    return rows.view(rows.shape[0], -1, group, rows.shape[2]).transpose(0, 1).flatten(1, 2)
