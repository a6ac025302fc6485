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
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Final

from specsim.errors import InputError
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


@lru_cache(maxsize=64)
def stage_layers(model: Model, stages: int) -> tuple[range, ...]:
    """The layers of each of `stages` pipeline stages: contiguous runs, as even in bytes as can be (least sum of
    squares), where the first stage also holds the head. Raises InputError where there are fewer layers than stages."""
    if not 1 <= stages <= model.layers:
        raise InputError(f"{model.name!r} has {model.layers} layers for {stages} stages", where="stages")
    sizes = [model.layer_parameters(model.layer_ffn(layer)) * model.element_bytes for layer in range(model.layers)]
    before = [0, *accumulate(sizes)]
    # best[n]: the least sum of squares of the stages so far, over the first n layers, and where the last of them begins
    best: list[tuple[float, int]] = [((size + head_bytes(model)) ** 2, 0) for size in before]
    cuts = [best]
    for stage in range(1, stages):
        best = [
            min(((cuts[-1][m][0] + (size - before[m]) ** 2, m) for m in range(stage, n)), default=(math.inf, 0))
            for n, size in enumerate(before)
        ]
        cuts.append(best)
    runs, end = [], model.layers
    for best in reversed(cuts):
        start = best[end][1]
        runs.append(range(start, end))
        end = start
    return tuple(reversed(runs))


def shard(model: Model, layers: range, tensor: int) -> Model:
    """What one of `tensor` devices holds of `layers`: its share of the heads and of every FFN's width, all of what a
    row passes through whole (norms, router), and where the stage has them the whole embedding and head.

    The way of Megatron-LM (arXiv 1909.08053). Raises InputError for shares that are not whole.
    """
    widths = {ffn.width for ffn in (model.ffn, model.dense_ffn) if ffn is not None}
    for name, number in (("KV heads", model.kv_heads), *(("columns in an FFN", width) for width in widths)):
        if number % tensor:
            what = f"{number} {name} of {model.name!r} do not divide by {tensor}"
            raise InputError(what, where="tensor", hint="split it by a divisor")
    if tensor == 1 and layers == range(model.layers):
        return model

    def share(ffn: FeedForward) -> FeedForward:
        return replace(ffn, width=ffn.width // tensor)

    return replace(
        model,
        layers=len(layers),
        heads=model.heads // tensor,
        kv_heads=model.kv_heads // tensor,
        ffn=share(model.ffn),
        dense_ffn=share(model.dense_ffn) if model.dense_ffn is not None else None,
        dense_layers=tuple(layer - layers.start for layer in model.dense_layers if layer in layers),
    )


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
