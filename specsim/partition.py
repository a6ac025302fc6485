"""How a model is cut into units that move between memories as one, and what these take where they lie.

A unit is a layer's attention weights, or one part of a layer's FFN: a group of experts, or one of a dense FFN's
three matrices. Parts are small enough for a ring of a few of them to keep a link busy, and each is a run of whole
tensors, so that a checkpoint can be read by byte range. The head stays in the fast memory, the embedding table in RAM.

A unit that stays is `held`: each of its tensors begins on a cache line. One that visits takes a slot of a ring, where
it lies as it was read: in whole blocks, which begin before its tensors and end after them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from specsim.model import FeedForward, Model
from specsim.units import MiB

#: the largest part of an FFN that moves as one, where the model can be cut so fine; a small fast memory asks for less
PART_BYTES: Final = 512 * MiB
#: parts of a layer at most: finer ones would gain nothing and swell every graph, so parts grow instead
MOST_PARTS: Final = 16
#: what tensors that stay in memory are aligned to: a cache line, and more than any GPU's kernels ask for
LINE: Final = 64
#: what reads past the page cache must be aligned to, in the file and in memory
BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class LayerUnits:
    """Bytes of one layer's units. The FFN has `parts` equal shares (experts that do not divide: the largest counts).
    `_held` is what a unit takes in a memory that it stays in, `slot_bytes` what the largest of them may take of a ring:
    that depends on where its tensors lie in their files, and this is the most."""

    attention_bytes: int
    ffn: FeedForward
    parts: int
    part_bytes: int
    attention_held: int
    part_held: int
    slot_bytes: int


@lru_cache(maxsize=256)
def layer_units(model: Model, ffn: FeedForward, part_bytes: int) -> LayerUnits:
    """The units of a layer of `model` whose FFN is `ffn`, cut in parts of at most `part_bytes` where that takes no
    more than `MOST_PARTS` and cuts no expert. The router counts with the attention: both are read first."""
    attention = _attention_tensors(model, ffn)
    matrix = model.hidden * ffn.width * model.element_bytes
    if ffn.is_moe:
        per_part = max(1, math.ceil(ffn.experts / MOST_PARTS), min(ffn.experts, int(part_bytes // (3 * matrix))))
        parts = math.ceil(ffn.experts / per_part)
        part = [matrix] * 3 * math.ceil(ffn.experts / parts)
    else:
        parts = 1 if 3 * matrix <= part_bytes else 3  # gate, up, down
        part = [matrix] * (3 // parts)
    slot = max(_visiting(attention), _visiting(part))
    return LayerUnits(sum(attention), ffn, parts, sum(part), _held(attention), _held(part), slot)


def head_bytes(model: Model) -> int:
    """The output projection and the final norm, as held."""
    return _held([model.embedding_parameters * model.element_bytes, model.hidden * model.element_bytes])


def embedding_bytes(model: Model) -> int:
    """As held."""
    return _held([model.embedding_parameters * model.element_bytes])


def whole_bytes(model: Model) -> int:
    """A whole model in one memory, as held."""
    layers = 0
    for ffn, count in model.ffn_kinds.items():
        matrix = model.hidden * ffn.width * model.element_bytes
        layers += count * _held(_attention_tensors(model, ffn) + [matrix] * 3 * ffn.experts)
    return layers + head_bytes(model) + (0 if model.tied else embedding_bytes(model))


def largest_slot_bytes(model: Model, part_bytes: int) -> int:
    """What a slot of the staging ring has to hold."""
    return max(layer_units(model, ffn, part_bytes).slot_bytes for ffn in model.ffn_kinds)


def _attention_tensors(model: Model, ffn: FeedForward) -> list[int]:
    """Bytes of each tensor of a layer's attention, its two norms and, in a mixture, the router."""
    h, d, q, kv = model.hidden, model.head_dim, model.heads * model.head_dim, model.kv_heads * model.head_dim
    sizes = [h, q * h, kv * h, kv * h, h * q, h]
    sizes += [q, kv, kv] * model.qkv_bias + [h] * model.output_bias + [d, d] * model.qk_norm
    sizes += [h * ffn.experts] * ffn.is_moe
    return [size * model.element_bytes for size in sizes]


def _held(tensors: Iterable[int]) -> int:
    return sum(-(-size // LINE) * LINE for size in tensors)


def _visiting(tensors: Iterable[int]) -> int:
    """Each tensor apart from the others, its first and its last byte anywhere in a block."""
    return sum(-(-size // BLOCK) * BLOCK + BLOCK for size in tensors)
