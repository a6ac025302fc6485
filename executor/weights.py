"""The weights of each unit of a model, as views: what a checkpoint hands out and the decoder computes with.

Projections are [out, in] as checkpoints store them. h hidden, d head size, n_q / n_kv heads, f FFN width, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from executor.decoder.packed import Weight


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """One layer's attention with both of the layer's norms and its router."""

    norm: Tensor  # [h], before the attention
    q: Weight  # [n_q d, h]
    k: Weight  # [n_kv d, h]
    v: Weight  # [n_kv d, h]
    o: Weight  # [h, n_q d]
    post_norm: Tensor  # [h], before the FFN
    q_bias: Tensor | None = None
    k_bias: Tensor | None = None
    v_bias: Tensor | None = None
    o_bias: Tensor | None = None
    q_norm: Tensor | None = None  # [d], Qwen3
    k_norm: Tensor | None = None  # [d]
    router: Tensor | None = None  # [E, h]


@dataclass(frozen=True, slots=True)
class Router:
    """What lies between a layer's attention and its FFN; AttentionWeights has the same two."""

    post_norm: Tensor
    router: Tensor | None


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """A gated FFN. A dense FFN is expert 0 of 1; where it is cut in three parts, each part has one matrix only."""

    gate: Weight | None = None  # [f, h]
    up: Weight | None = None  # [f, h]
    down: Weight | None = None  # [h, f]


#: one part of a layer's FFN: the experts that it holds, by their index in the layer
PartWeights = Mapping[int, ExpertWeights]


@dataclass(frozen=True, slots=True)
class HeadWeights:
    norm: Tensor  # [h], the final norm
    output: Tensor  # [V, h]
