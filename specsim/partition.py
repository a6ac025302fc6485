"""How a model is cut into units that move between memories as one.

A unit is a layer's attention weights, or one part of a layer's FFN: a group of experts, or one of a dense FFN's
three matrices. Parts are small enough for a ring of a few of them to keep a link busy, and each is a run of whole
tensors, so that a checkpoint can be read by byte range. The head stays in the fast memory, the embedding table in RAM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from specsim.model import FeedForward, Model
from specsim.units import MiB

#: the largest part of an FFN that moves as one, where the model can be cut so fine; a small fast memory asks for less
PART_BYTES: Final = 512 * MiB
#: parts of a layer at most: finer ones would gain nothing and swell every graph, so parts grow instead
MOST_PARTS: Final = 16


@dataclass(frozen=True, slots=True)
class LayerUnits:
    """Bytes of one layer's units. The FFN has `parts` equal shares (experts that do not divide: the largest counts)."""

    attention_bytes: int
    ffn: FeedForward
    parts: int
    part_bytes: int


@lru_cache(maxsize=256)
def layer_units(model: Model, ffn: FeedForward, part_bytes: int) -> LayerUnits:
    """The units of a layer of `model` whose FFN is `ffn`, cut in parts of at most `part_bytes` where that takes no
    more than `MOST_PARTS` and cuts no expert. The router counts with the attention: both are read first."""
    size = model.element_bytes
    attention = (model.attention_parameters + model.router_parameters(ffn)) * size
    expert = model.expert_parameters(ffn) * size
    if ffn.is_moe:
        per_part = max(1, math.ceil(ffn.experts / MOST_PARTS), min(ffn.experts, int(part_bytes // expert)))
        parts = math.ceil(ffn.experts / per_part)
        return LayerUnits(attention, ffn, parts, math.ceil(ffn.experts / parts) * expert)
    parts = 1 if expert <= part_bytes else 3  # gate, up, down
    return LayerUnits(attention, ffn, parts, math.ceil(expert / parts))


def head_bytes(model: Model) -> int:
    """The output projection and the final norm."""
    return (model.embedding_parameters + model.hidden) * model.element_bytes


def embedding_bytes(model: Model) -> int:
    return model.embedding_parameters * model.element_bytes


def largest_unit_bytes(model: Model, part_bytes: int) -> int:
    """What a slot of the staging ring has to hold."""
    units = [layer_units(model, ffn, part_bytes) for ffn in model.ffn_kinds]
    return max(max(u.attention_bytes, u.part_bytes) for u in units)
