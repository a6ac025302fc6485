"""The FFN of a layer, part by part: route, let each part add what its experts give, finish.

Parts may be computed on any processor and in any order: the sum of a token's two experts is the same either way
round, and of more EXACT sums the float32 products in float64, where that is exact (unless they lie more than 2^26
apart), and rounds once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from executor.architecture import Architecture
from executor.decoder.numerics import Numerics, rms_norm
from executor.decoder.products import MOST_ROWS, best_rows
from executor.weights import AttentionWeights, ExpertWeights, PartWeights, Router
from specsim.decision import CHUNK_TOKENS

#: rows of an expert's output that are weighted and added at once: bounds what is held in wide dtypes
COMBINE_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Routing:
    """The experts that each token was sent to, ascending, and how much each counts."""

    experts: Tensor  # [T, k] int64
    weights: Tensor  # [T, k] float32

    def to(self, device: torch.device) -> Routing:
        return Routing(self.experts.to(device), self.weights.to(device))


def route(
    arch: Architecture, numerics: Numerics, w: AttentionWeights | Router, hidden: Tensor
) -> tuple[Tensor, Routing | None]:
    """Normed hidden [T, h], and where the layer has a router each token's top-k of the softmax over all experts
    (in float32; of equals, the lowest index)."""
    normed = rms_norm(hidden, w.post_norm, arch.rms_eps)
    if w.router is None:
        return normed, None
    shares = torch.softmax(numerics.linear(normed, w.router).float(), dim=-1)
    ordered, experts = shares.sort(dim=-1, descending=True, stable=True)  # topk does not say which of equals it takes
    weights, experts = ordered[:, : arch.model.ffn.top_k], experts[:, : arch.model.ffn.top_k]
    if arch.renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    experts, order = experts.sort(dim=-1)
    return normed, Routing(experts, weights.gather(1, order))


def accumulator(arch: Architecture, numerics: Numerics, layer: int, tokens: int, device: torch.device) -> Tensor:
    """Zeros [T, h] that the parts of a layer's FFN are added into. A dense FFN adds once, so its own dtype is exact."""
    ffn = arch.model.layer_ffn(layer)
    several = torch.float32 if ffn.top_k <= 2 else numerics.accumulate
    dtype = several if ffn.is_moe else arch.dtype
    return torch.zeros((tokens, arch.model.hidden), dtype=dtype, device=device)


def feed_forward(
    numerics: Numerics,
    part: PartWeights,
    normed: Tensor,
    routing: Routing | None,
    into: Tensor,
    inner: Tensor | None = None,
    *,
    most_rows: int = CHUNK_TOKENS,
) -> None:
    """Adds to `into` [T, h] what this part's experts give for normed [T, h]; without routing, what expert 0 gives.

    A dense FFN in three parts is three calls, gate, up, down, with the same `inner` [T, f], which carries the
    intermediate between them (uninitialised at first). A part need not hold experts that no token was sent to. Products
    have at most `most_rows` rows.
    """
    most = min(MOST_ROWS, most_rows) if normed.device.type == "cpu" else most_rows
    if routing is None:
        for first in range(0, normed.shape[0], most):
            rows = slice(first, first + most)
            y = _gated(numerics, part[0], normed[rows], None if inner is None else inner[rows])
            if y is not None:
                into[rows] += y
        return
    for expert, expert_weights in part.items():
        chosen = (routing.experts == expert).nonzero()  # [t, 2], a token and which of its experts this is
        for tokens, which in (pairs.unbind(1) for pairs in torch.split(chosen, most) if len(pairs)):
            # Rows that fill a product up to a good height are token 0 again, and dropped.
            spare = best_rows(len(tokens), normed) - len(tokens)
            x = normed.index_select(0, functional.pad(tokens, (0, spare)) if spare else tokens)
            y = _gated(numerics, expert_weights, x, None)
            assert y is not None
            weights = routing.weights[tokens, which][:, None]
            pieces = (torch.split(of, COMBINE_ROWS) for of in (tokens, weights, y[: len(tokens)]))
            for some, weight, out in zip(*pieces, strict=True):
                into.index_add_(0, some, (out * weight).to(into.dtype))


def finish(numerics: Numerics, outputs: Sequence[Tensor], hidden: Tensor) -> Tensor:
    """The FFN's output, one [T, h] from each processor that computed a part, rounded once to the model's dtype and
    added to the residual stream [T, h]."""
    total = outputs[0]
    for other in outputs[1:]:
        total = total.to(numerics.accumulate) + other
    return hidden + total.to(hidden.dtype)


def _gated(numerics: Numerics, expert: ExpertWeights, x: Tensor, inner: Tensor | None) -> Tensor | None:
    """down(silu(gate x) * up x) for x [t, h], of as many of the three matrices as this part has: [t, h], or None
    without the last."""
    if expert.gate is not None:
        gate = numerics.silu_(numerics.linear(x, expert.gate))
        inner = gate if inner is None else inner.copy_(gate)
    assert inner is not None, "an FFN in parts needs its intermediate"
    if expert.up is not None:
        inner *= numerics.linear(x, expert.up)
    return None if expert.down is None else numerics.linear(inner, expert.down)
