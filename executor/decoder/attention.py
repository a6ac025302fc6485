"""Causal attention of packed rows over each sequence's cache, grouped query heads folded into rows of their KV head.

Folding makes one product per KV head of what would be one per query head. Sequences of about the same size attend
together, what they have cached gathered side by side: with a decode step's few rows, a call to torch costs more than
the work in it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from executor.architecture import Architecture
from executor.decoder.cache import Segment, write
from executor.decoder.numerics import Numerics
from specsim.memory import GATHERED_ELEMENTS

#: query rows and cached positions of a tile: the one shape of EXACT, and what sequences' sizes are counted in
QUERY_TILE: Final = 16
KV_BLOCK: Final = 64
#: FAST gathers sequences of up to so many query tiles, and elements of K each; larger ones attend one by one. Decoding
#: 16 sequences on two threads, gathering them was 1.5 to 2 times as fast up to 33,000 elements, 1.1 to 1.3 at 47,000,
#: 0.8 to 1.2 at 65,000 and 0.8 to 1.1 at 82,000. A prompt's many rows leave no call to save.
FAST_TILES: Final = 4
FAST_GATHERED: Final = 50_000
#: positions whose queries attend at once in FAST: enough for full speed, few enough to skip most of what is masked
QUERY_CHUNK: Final = 128
#: scores (and so masks) of one KV head in a chunk: 64 MB in float32
MAX_SCORES: Final = 16_000_000


class _Member(NamedTuple):
    """A sequence of the batch."""

    segment: Segment
    cache: tuple[Tensor, Tensor]  # K and V, each [n_kv, capacity, d]
    tiles: int  # that its query rows fill
    begin: int  # first position of the first block that any of its queries sees
    blocks: int  # that they see


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
    window, group = arch.windows[layer], q.shape[1] // k.shape[1]
    members = []
    for segment, cache in zip(segments, caches, strict=True):
        write(cache, k[segment.rows], v[segment.rows], segment)
        begin = _oldest(segment.start, window) // KV_BLOCK * KV_BLOCK
        blocks = -(-(segment.end - begin) // KV_BLOCK)
        members.append(_Member(segment, cache, -(-segment.count * group // QUERY_TILE), begin, blocks))
    heads = torch.empty_like(q)
    for some in _alike(numerics, members):
        if numerics.exact or len(some) > 1:
            _together(numerics, q, some, window, heads)
        else:
            segment, cache = some[0][:2]
            heads[segment.rows] = _alone(q[segment.rows], *cache, segment.start, window)
    return heads.flatten(1)


def _alike(numerics: Numerics, members: list[_Member]) -> Iterator[list[_Member]]:
    """Sequences that attend together: as many tiles of query rows, and cached blocks within a factor of two."""

    def size(member: _Member) -> tuple[int, int]:
        return member.tiles, member.blocks.bit_length()

    for (tiles, _), alike in itertools.groupby(sorted(members, key=size), size):
        some = list(alike)
        kv_heads, _, head_dim = some[0].cache[0].shape
        gathered = max(member.blocks for member in some) * KV_BLOCK * kv_heads * head_dim
        queries = tiles * QUERY_TILE * kv_heads * head_dim
        at_once = max(1, GATHERED_ELEMENTS // max(gathered, queries))
        if not numerics.exact and (tiles > FAST_TILES or gathered > FAST_GATHERED):
            at_once = 1
        for first in range(0, len(some), at_once):
            yield some[first : first + at_once]


def _together(numerics: Numerics, q: Tensor, members: list[_Member], window: int | None, heads: Tensor) -> None:
    """Fills the heads [T, n_q, d] of n sequences' queries. A sequence with fewer rows than others repeats its last."""
    facts = [(s.first, s.start - begin, s.count - 1) for s, _, _, begin, _ in members]
    first, start, last = torch.tensor(facts).T[:, :, None]
    new = torch.arange(max(member.segment.count for member in members)).clamp(max=last)  # [n, c]
    rows, positions = (first + new).flatten().to(q.device), start + new  # positions count from what is gathered first
    gathered = _gather(members, torch.float32 if numerics.exact else q.dtype)
    n, count, kv_heads = *new.shape, gathered.shape[2]
    group = q.shape[1] // kv_heads
    some = q.index_select(0, rows).view(n, count, kv_heads, group, -1)
    folded = some.transpose(1, 2).flatten(2, 3)  # [n, n_kv, c g, d]
    core = _exact if numerics.exact else _fast
    out = core(folded, gathered, positions.repeat_interleave(group, 1), window)
    out = out.view(n, kv_heads, count, group, -1).transpose(1, 2).reshape(n * count, *q.shape[1:])
    heads.index_copy_(0, rows, out.to(q.dtype))


def _gather(members: list[_Member], dtype: torch.dtype) -> Tensor:
    """K and V of n sequences from where each begins, zeros behind its last position: [2, n, n_kv, length, d]."""
    some = members[0].cache[0]
    kv_heads, _, head_dim = some.shape
    length = max(member.blocks for member in members) * KV_BLOCK
    gathered = torch.empty((2, len(members), kv_heads, length, head_dim), dtype=dtype, device=some.device)
    gathered[:, :, :, min(segment.end - begin for segment, _, _, begin, _ in members) :] = 0.0
    for i, (segment, cache, _, begin, _) in enumerate(members):
        for into, kept in zip(gathered[:, i, :, : segment.end - begin], cache, strict=True):
            into.copy_(kept[:, begin : segment.end])
    return gathered


def _exact(rows: Tensor, gathered: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """Query rows [n, n_kv, R, d] at positions [n, R] over what is gathered: [n, n_kv, R, d] in float32.

    Products are of tiles of one shape, query rows by cached positions. A row's maximum is exact; of each block it
    takes a product and a sum of fixed shape, and adds up the blocks in order. A block that it does not see gives
    exact zeros, so that it does not matter which others are there.
    """
    n, kv_heads, count, head_dim = rows.shape
    spare = -count % QUERY_TILE  # rows that fill the last tile are computed and dropped
    rows = functional.pad(rows.float() * head_dim**-0.5, (0, 0, 0, spare))
    tiles = functional.pad(positions, (0, spare)).view(n, -1, QUERY_TILE)
    oldest, newest = tiles.amin((0, 2)).tolist(), tiles.amax((0, 2)).tolist()
    tiles = tiles.to(rows.device)
    k, v = gathered.view(2, n, kv_heads, -1, KV_BLOCK, head_dim)
    cached = torch.arange(gathered.shape[3], device=rows.device).view(-1, 1, KV_BLOCK)
    out = []
    seen, keys, values = slice(0), k, v
    for i, tile in enumerate(torch.split(rows, QUERY_TILE, dim=2)):
        before, seen = seen, slice(_oldest(oldest[i], window) // KV_BLOCK, newest[i] // KV_BLOCK + 1)
        if seen != before:  # for fewer than all blocks these are copies, which many tiles of a prompt share
            keys, values = k[:, :, seen].flatten(0, 2), v[:, :, seen].flatten(0, 2)
        live = min(QUERY_TILE, count - i * QUERY_TILE)
        hidden = _visible(tiles[:, None, None, i, :live, None], cached[seen], window).logical_not_()
        each = (n, kv_heads, hidden.shape[2], QUERY_TILE, -1)  # hidden: [n, 1, blocks, live, block]
        scores = torch.bmm(tile[:, :, None].expand(each).flatten(0, 2), keys.mT)
        weights = scores.view(each)[..., :live, :].masked_fill_(hidden, -torch.inf)
        weights.sub_(weights.amax((2, 4), keepdim=True)).exp_()
        filled = functional.pad(weights, (0, 0, 0, QUERY_TILE - live)) if live < QUERY_TILE else weights
        sums = torch.bmm(filled.flatten(0, 2), values).view(each)[..., :live, :]
        total = functools.reduce(torch.add, sums.unbind(2))
        out.append(total / functools.reduce(torch.add, weights.sum(-1, keepdim=True).unbind(2)))
    return out[0] if len(out) == 1 else torch.cat(out, dim=2)


def _fast(rows: Tensor, gathered: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """As `_exact`, in the dtype of the rows."""
    keys, values = gathered
    cached = torch.arange(keys.shape[2], device=rows.device)
    mask = _visible(positions.to(rows.device)[:, None, :, None], cached, window)
    return functional.scaled_dot_product_attention(rows, keys, values, attn_mask=mask)


def _alone(q: Tensor, keys: Tensor, values: Tensor, start: int, window: int | None) -> Tensor:
    """FAST, of one sequence's queries [c, n_q, d] from position `start` on: [c, n_q, d]."""
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
        rows = part.view(part.shape[0], keys.shape[0], group, -1).transpose(0, 1).flatten(1, 2)
        out = functional.scaled_dot_product_attention(
            rows[None], keys[None, :, seen], values[None, :, seen], attn_mask=mask
        )
        heads[first : first + chunk] = out[0].view(keys.shape[0], -1, group, q.shape[2]).transpose(0, 1).flatten(1, 2)
    return heads


def _oldest(position: int, window: int | None) -> int:
    """The first position that a query at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def _visible(queries: Tensor, cached: Tensor, window: int | None) -> Tensor:
    """Which cached positions each query's position sees."""
    causal = cached <= queries
    return causal if window is None else causal & (cached > queries - window)
