"""The FFN of a layer, part by part: route, dispatch, let each part add what its experts give, finish.

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
class Dispatch:
    """The tokens of every expert, one expert's behind another's: found once for all parts of a layer."""

    tokens: Tensor  # [T k + some] int32, ascending for each expert; behind them token 0, to fill products up
    weights: Tensor  # [T k, 1] float32, how much the expert counts for that token
    ends: list[int]  # by expert, where its tokens end and the next one's begin

    def of(self, expert: int) -> range:
        """Where among `tokens` an expert's are."""
        return range(self.ends[expert - 1] if expert else 0, self.ends[expert])


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


def dispatch(arch: Architecture, layer: int, routing: Routing | None) -> Dispatch | None:
    """A layer's tokens, sorted by expert; None where nothing is routed."""
    if routing is None:
        return None
    experts = routing.experts.flatten()
    order = experts.argsort(stable=True)
    tokens = order.div(routing.experts.shape[1], rounding_mode="floor").to(torch.int32)
    tokens = functional.pad(tokens, (0, MOST_ROWS))  # no product that is filled up has more
    ends = torch.bincount(experts, minlength=arch.model.layer_ffn(layer).experts).cumsum(0).tolist()
    return Dispatch(tokens, routing.weights.flatten()[order, None], ends)


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
    sent: Dispatch | None,
    into: Tensor,
    inner: Tensor | None = None,
    *,
    most_rows: int = CHUNK_TOKENS,
) -> None:
    """Adds to `into` [T, h] what this part's experts give for the tokens of normed [T, h] that are `sent` to them;
    without routing, what expert 0 gives for all.

    A dense FFN in three parts is three calls, gate, up, down, with the same `inner` [T, f], which carries the
    intermediate between them (uninitialised at first). A part need not hold experts that no token was sent to. Products
    have at most `most_rows` rows.
    """
    most = min(MOST_ROWS, most_rows) if normed.device.type == "cpu" else most_rows
    if sent is None:
        for first in range(0, normed.shape[0], most):
            rows = slice(first, first + most)
            y = _gated(numerics, part[0], normed[rows], None if inner is None else inner[rows])
            if y is not None:
                into[rows] += y
        return
    for expert, expert_weights in part.items():
        mine = sent.of(expert)
        for chunk in (mine[first : first + most] for first in range(0, len(mine), most)):
            # Rows that fill a product up to a good height are those of the next tokens, and dropped.
            filled = chunk.start + best_rows(len(chunk), normed)
            y = _gated(numerics, expert_weights, normed.index_select(0, sent.tokens[chunk.start : filled]), None)
            assert y is not None
            for first in range(0, len(chunk), COMBINE_ROWS):
                some = chunk[first : first + COMBINE_ROWS]
                out = y[first : first + len(some)].to(torch.float32, memory_format=torch.contiguous_format)
                out *= sent.weights[some.start : some.stop]
                into.index_add_(0, sent.tokens[some.start : some.stop], out.to(into.dtype))


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
