"""What attention on the CPU takes beside the caches, in exact numerics (see executor/decoder/attention.py).

Queries attend in tiles of `QUERY_TILE` rows, caches in blocks of `KV_BLOCK` positions, in float32. Sequences of about
the same size attend together, as many as gather `GATHERED_ELEMENTS` elements of K, or one that has more. These sizes
are a contract: the executor imports them from here.
"""

from __future__ import annotations

import math
from typing import Final

from specsim.model import Model

QUERY_TILE: Final = 16
KV_BLOCK: Final = 64
GATHERED_ELEMENTS: Final = 500_000
_FLOAT: Final = 4  # bytes


def attention_bytes(model: Model, rows: float, sequences: float, positions: float) -> float:
    """Bytes at the fullest moment of a layer for `rows` queries of `sequences` sequences of about the same length, each
    with up to `positions` in its cache, the queries' own among them."""
    d, size = model.head_dim, model.element_bytes
    tiles = math.ceil(rows / sequences * model.heads / model.kv_heads / QUERY_TILE)  # of a sequence and KV head
    length = math.ceil(positions / KV_BLOCK) * KV_BLOCK
    width = model.kv_heads * d
    together = max(1.0, min(sequences, GATHERED_ELEMENTS // max(length * width, tiles * QUERY_TILE * width)))
    packed = rows * d * size * (3 * model.heads + 2 * model.kv_heads)  # Q, K, V; Q of a group; what the heads give
    gathered = together * length * width
    folded = together * tiles * QUERY_TILE * width * _FLOAT  # queries by KV head, scaled and then padded to whole tiles
    scores = together * model.kv_heads * QUERY_TILE * length * _FLOAT  # of one tile of each sequence
    sums = scores * d / KV_BLOCK
    # Scores, weights and a copy of these for the product; before that, what is gathered in its own type.
    tile = max(3 * scores + sums, 2 * gathered * size)
    done = 2 * folded if tiles > 1 else 0.0  # the output tile by tile, and joined
    return packed + 2 * gathered * _FLOAT + 2 * folded + done + tile


def lasting_bytes(model: Model, tokens: float) -> float:
    """Of a pass, while its layers go by: hidden states as they are and normalised, and the sums of an FFN's parts."""
    return tokens * model.hidden * (2 * model.element_bytes + _FLOAT)
