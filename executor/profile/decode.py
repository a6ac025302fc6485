"""Steps of decoding with random weights, run by the decoder's own functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import torch
from torch import Tensor

from executor.architecture import Architecture, Rope
from executor.decoder.attention import attend
from executor.decoder.batch import Batch
from executor.decoder.cache import KvArena, Segment
from executor.decoder.numerics import FAST
from executor.decoder.resident import ResidentModel
from executor.weights import AttentionWeights, ExpertWeights, HeadWeights, PartWeights
from specsim.cost import work as cost
from specsim.cost.shapes import PassShape, decode_shape
from specsim.cost.work import Work
from specsim.model import Model, from_config

#: layers that attention walks through, so that a cache has left the processor's own caches when its turn comes again
_LAYERS: Final = 8


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """A step of `sequences` sequences, each with `context` cached positions and `new` more."""

    model: Model
    sequences: int
    new: int
    context: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.new

    @property
    def totals(self) -> PassShape:
        return decode_shape(self.sequences, self.new, self.context)

    def attention(self) -> Work:
        """One layer's attention core, as the cost model counts it."""
        return cost.attention_core(self.model, self.totals)

    def step(self) -> tuple[Work, ...]:
        """The whole step."""
        return cost.whole_pass(self.model, self.totals)

    def segments(self) -> list[Segment]:
        return [Segment(i * self.new, self.new, self.context) for i in range(self.sequences)]


def dense_model(hidden: int, width: int, layers: int, heads: int, kv_heads: int, head_dim: int) -> Model:
    """A bf16 model with a vocabulary of `hidden` tokens."""
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": hidden,
    }
    return from_config(config, name="probe", where="profile")


def attention_run(shape: DecodeShape, device: torch.device) -> Callable[[], Tensor]:
    """The attention core alone, every time over the next of several layers' caches."""
    arch, model, segments = _architecture(shape.model), shape.model, shape.segments()
    q = _random(shape.tokens, model.heads, model.head_dim, device=device)
    k, v = (_random(shape.tokens, model.kv_heads, model.head_dim, device=device) for _ in "kv")
    places = shape.sequences * (shape.context + shape.new)
    arena = KvArena([_random(2, model.kv_heads, places, model.head_dim, device=device) for _ in range(_LAYERS)])
    batch = Batch(arch, FAST, segments, [arena.take(shape.context + shape.new) for _ in segments], device)
    layers = cycle(arena.layers)

    def run() -> Tensor:
        with torch.inference_mode():
            return attend(0, q, k, v, batch, next(layers))

    return run


def step_run(shape: DecodeShape, device: torch.device) -> Callable[[], Tensor]:
    """A whole step, logits of every row included."""
    arch, model, segments = _architecture(shape.model), shape.model, shape.segments()
    h, f, n_q, n_kv = model.hidden, model.ffn.width, model.heads * model.head_dim, model.kv_heads * model.head_dim
    norm = torch.ones(h, dtype=torch.bfloat16, device=device)

    def matrix(rows: int, columns: int) -> Tensor:
        return _random(rows, columns, device=device) / math.sqrt(columns)

    def attention() -> AttentionWeights:
        return AttentionWeights(norm, matrix(n_q, h), matrix(n_kv, h), matrix(n_kv, h), matrix(h, n_q), norm)

    def parts() -> list[PartWeights]:
        return [{0: ExpertWeights(matrix(f, h), matrix(f, h), matrix(h, f))}]

    layers = [(attention(), parts()) for _ in range(model.layers)]
    table = matrix(model.vocab, h)
    resident = ResidentModel(arch, layers, table, HeadWeights(norm, table), FAST)
    arena = KvArena.empty(arch, shape.sequences * (shape.context + shape.new), device)
    for kv in arena.layers:
        kv.normal_()
    caches = [arena.take(shape.context + shape.new) for _ in segments]
    ids = torch.arange(shape.tokens, device=device) % model.vocab
    rows = torch.arange(shape.tokens, device=device)
    return lambda: resident.forward(ids, segments, caches, rows)


def _architecture(model: Model) -> Architecture:
    windows = (None,) * model.layers
    return Architecture(model, rms_eps=1e-5, rope=Rope(1e4), windows=windows, renormalise=False, eos=())


def _random(*size: int, device: torch.device) -> Tensor:
    return torch.randn(size, device=device).to(torch.bfloat16)
