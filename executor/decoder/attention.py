"""Causal attention of packed rows over each sequence's cache, grouped query heads folded into rows of their KV head.

Folding makes one product per KV head of what would be one per query head.
"""

from __future__ import annotations

import functools
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from executor.decoder.batch import Batch, Group
from specsim.attending import KV_BLOCK, QUERY_TILE

#: positions whose queries attend at once in FAST: enough for full speed, few enough to skip most of what is masked
QUERY_CHUNK: Final = 128
#: scores (and so masks) of one KV head in a chunk: 64 MB in float32
MAX_SCORES: Final = 16_000_000


def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch, kv: Tensor) -> Tensor:
    """Writes k and v [T, n_kv, d] to the batch's places in the layer's K and V [2, n_kv, places, d], then lets the
    queries [T, n_q, d] attend to their own and all earlier positions (in the layer's window): [T, n_q d]."""
    for cached, new in zip(kv, (k, v), strict=True):
        cached.index_copy_(1, batch.written, new.transpose(0, 1))
    window = batch.arch.windows[layer]
    heads = torch.empty_like(q)
    for group in batch.groups(window):
        n, count = group.positions.shape
        some = q.index_select(0, group.rows).view(n, count, kv.shape[1], -1, kv.shape[3])
        some = some.permute(2, 0, 1, 3, 4)  # [n_kv, n, c, g, d]
        core = _exact if batch.numerics.exact else _fast
        out = core(some, kv, group, window).permute(1, 2, 0, 3, 4).reshape(n * count, *q.shape[1:])
        heads.index_copy_(0, group.rows, out.to(q.dtype))
    return heads.flatten(1)


def _exact(q: Tensor, kv: Tensor, group: Group, window: int | None) -> Tensor:
    """Queries [n_kv, n, c, g, d] over what their sequences have cached: the same shape in float32.

    Products are of tiles of one shape, query rows by cached positions, and are added up block by block, in order. A
    block that a row does not see has weights of exact zeros, so that it does not matter which others are there. A
    softmax is over whole blocks, which fill the library's vectors: it adds up one vector after another, so that zeros
    before or behind change nothing.
    """
    kv_heads, n, count, heads, head_dim = q.shape
    keys, values = _blocks(kv, group)
    rows = (q.float() * head_dim**-0.5).flatten(2, 3)
    spare = -rows.shape[2] % QUERY_TILE  # rows that fill the last tile are computed and dropped
    tiles = torch.split(functional.pad(rows, (0, 0, 0, spare)), QUERY_TILE, dim=2)
    positions = torch.split(functional.pad(group.positions.repeat_interleave(heads, 1), (0, spare)), QUERY_TILE, dim=1)
    cached = torch.arange(keys.shape[0] * KV_BLOCK, device=q.device)
    out = []
    for tile, at, seen in zip(tiles, positions, group.seen, strict=True):
        shape = (seen.stop - seen.start, kv_heads, n, QUERY_TILE, -1)  # of products
        scores = torch.bmm(tile.expand(shape).flatten(0, 2), keys[seen].flatten(0, 2).mT).view(shape)
        scores = scores.permute(1, 2, 3, 0, 4).flatten(3)
        visible = _visible(at[..., None], cached[seen.start * KV_BLOCK : seen.stop * KV_BLOCK], window)
        weights = torch.softmax(scores.masked_fill_(visible.logical_not_(), -torch.inf), dim=-1)
        weights = weights.view(kv_heads, n, QUERY_TILE, -1, KV_BLOCK).permute(3, 0, 1, 2, 4)
        sums = torch.bmm(weights.reshape(-1, QUERY_TILE, KV_BLOCK), values[seen].flatten(0, 2)).view(shape)
        out.append(functools.reduce(torch.add, sums.unbind(0)))
    whole = out[0] if len(out) == 1 else torch.cat(out, dim=2)
    return whole[:, :, : count * heads].reshape(q.shape)


def _blocks(kv: Tensor, group: Group) -> Tensor:
    """K and V of a group's sequences in float32: [2, blocks, n_kv, n, block, d]."""
    n = group.positions.shape[0]
    gathered = kv.flatten(0, 1).index_select(1, group.places)
    gathered = gathered.view(2, kv.shape[1], n, -1, KV_BLOCK, kv.shape[3]).permute(0, 3, 1, 2, 4, 5)
    return torch.empty(gathered.shape, dtype=torch.float32, device=kv.device).copy_(gathered)


def _fast(q: Tensor, kv: Tensor, group: Group, window: int | None) -> Tensor:
    """As `_exact`, in the dtype of the queries."""
    kv_heads, n, count, heads, head_dim = q.shape
    if group.run is not None:
        keys, values = kv[:, :, None, group.run]
    else:
        keys, values = kv.flatten(0, 1).index_select(1, group.places).view(2, kv_heads, n, -1, head_dim)
    cached = torch.arange(keys.shape[2], device=q.device)
    chunk = max(1, min(QUERY_CHUNK, MAX_SCORES // (heads * n * keys.shape[2])))
    out = []
    for first in range(0, count, chunk):
        some, at = q[:, :, first : first + chunk], group.positions[:, first : first + chunk]
        tiles = group.seen[first * heads // QUERY_TILE : -(-(first + at.shape[1]) * heads // QUERY_TILE)]
        seen = slice(tiles[0].start * KV_BLOCK, tiles[-1].stop * KV_BLOCK)
        # With a mask of 3 dimensions torch takes a path that is many times slower.
        mask = _visible(at.repeat_interleave(heads, 1)[None, ..., None], cached[seen], window)
        attended = functional.scaled_dot_product_attention(
            some.flatten(2, 3), keys[:, :, seen], values[:, :, seen], attn_mask=mask
        )
        out.append(attended.view(some.shape))
    return out[0] if len(out) == 1 else torch.cat(out, dim=2)


def _visible(queries: Tensor, cached: Tensor, window: int | None) -> Tensor:
    """Which cached positions each query's position sees."""
    causal = cached <= queries
    return causal if window is None else causal & (cached > queries - window)
