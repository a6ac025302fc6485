"""FLOPs and bytes of each operation of a decoder.

T tokens, B sequences, h hidden, d head size, n_q / n_kv heads, f FFN width, E experts, top-k, V vocabulary, b bytes per
element. Formulas: Kaplan et al. 2020 (arXiv 2001.08361, table 1) for dense projections, extended to grouped heads,
gated FFNs and experts. Bytes are traffic on the memory beside the processor: weights once, activations in and out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from specsim.cost.shapes import PassShape
from specsim.hardware import Op
from specsim.model import FeedForward, Model

WorkKind = Literal["gemm", "attention", "copy"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a task does. `rows` is that of its matrix products (for the efficiency curve), `calls` how many operations
    `op` it starts, `pinned` whether a copy's RAM side is page-locked. Of the `bytes`, `activations` are rows that go
    in and out, which norms, gates and the like pass through as well. `sequences` are those that attend. A transfer
    that is `far` leads from node to node."""

    kind: WorkKind
    flops: float = 0.0
    bytes: float = 0.0
    rows: float = 1.0
    calls: float = 1.0
    dtype: str = "bfloat16"
    pinned: bool = True
    op: Op | None = None
    activations: float = 0.0
    sequences: float = 0.0
    packed: bool = False
    far: bool = False


def distinct_experts(ffn: FeedForward, tokens: float) -> float:
    """Expected number of experts that `tokens` tokens are routed to: sum over e of 1 - (1 - p_e)^T.

    Uniform routing, p = k / E; real routing is less even, which makes this an upper estimate.
    """
    untouched: float = (1.0 - ffn.top_k / ffn.experts) ** tokens
    return ffn.experts * (1.0 - untouched)


def projections(model: Model, tokens: float, *, q: bool = True, kv: bool = True, out: bool = True) -> Work:
    """Q, K, V and O products: 2 T h d (2 n_q + 2 n_kv) FLOPs when all are asked for."""
    width = model.head_dim * ((q + out) * model.heads + 2 * kv * model.kv_heads)
    weights = model.hidden * width
    activations = tokens * (width + (q + out) * model.hidden) * model.element_bytes
    return Work(
        "gemm",
        2 * tokens * weights,
        weights * model.element_bytes + activations,
        tokens,
        dtype=model.dtype,
        op="projections",
        activations=activations,
    )


def attention_core(model: Model, shape: PassShape) -> Work:
    """softmax(Q K^T) V: 4 n_q d per (query, key) pair; K and V read once per pass for all queries of a sequence."""
    flops = 4 * model.heads * model.head_dim * shape.attended
    kv = (shape.cached + shape.tokens) * model.kv_bytes_per_token_layer
    query_and_output = 2 * shape.tokens * model.heads * model.head_dim * model.element_bytes
    return Work(
        "attention",
        flops,
        kv + query_and_output,
        shape.tokens,
        dtype=model.dtype,
        op="attention",
        activations=query_and_output,
        sequences=shape.rows,
    )


def feed_forward(
    model: Model, ffn: FeedForward, tokens: float, share: float = 1.0, most_rows: float = math.inf
) -> Work:
    """`share` of a layer's gated FFN: 6 T k h f FLOPs, weights of the distinct experts read once, router 2 T h E.

    Every expert is a call of its own: grouped products of ragged experts are not to be had on every processor. Products
    have at most `most_rows` rows; where there are more, each chunk of them reads the weights anew.
    """
    if tokens <= 0:
        return Work("gemm", 0.0, 0.0, 1.0)
    distinct = distinct_experts(ffn, tokens)
    routed = tokens * ffn.top_k
    flops = 6 * routed * model.hidden * ffn.width + 2 * tokens * model.router_parameters(ffn)
    rows = max(1.0, routed / distinct)
    chunks = max(1.0, rows / most_rows)
    weights = distinct * model.expert_parameters(ffn) * chunks
    activations = routed * (2 * model.hidden + 3 * ffn.width)
    size = model.element_bytes * share
    calls = max(1.0, distinct * share) * chunks
    return Work(
        "gemm",
        flops * share,
        (weights + activations) * size,
        rows / chunks,
        calls,
        model.dtype,
        op="expert" if ffn.is_moe else "dense",
        activations=activations * size,
    )


def head(model: Model, rows: float) -> Work:
    """Logits of `rows` positions: 2 rows h V FLOPs, fp32 logits written and read once by the argmax or the sampler."""
    weights = model.embedding_parameters
    logits = 2 * 4 * rows * model.vocab
    return Work(
        "gemm",
        2 * rows * weights,
        weights * model.element_bytes + logits,
        rows,
        dtype=model.dtype,
        op="head",
        activations=logits,
    )


def whole_pass(model: Model, shape: PassShape) -> tuple[Work, ...]:
    """All layers and the head, everything resident: how a draft model runs. Each op is bound by itself."""
    works: list[Work] = []
    for ffn, layers in model.ffn_kinds.items():
        parts = (projections(model, shape.tokens), attention_core(model, shape), feed_forward(model, ffn, shape.tokens))
        works += [replace(repeat(part, layers), packed=part.kind == "gemm") for part in parts]
    return (*works, head(model, shape.head_rows))


def repeat(work: Work, times: float) -> Work:
    """`times` equal operations one after another."""
    amounts = ("flops", "bytes", "calls", "activations", "sequences")
    return replace(work, **{name: getattr(work, name) * times for name in amounts})


def copy(byte_count: float, *, pinned: bool = True) -> Work:
    return Work("copy", 0.0, byte_count, pinned=pinned)


def send(byte_count: float, *, far: bool) -> Work:
    """One transfer from device to device."""
    return Work("copy", 0.0, byte_count, far=far)


def all_reduce(byte_count: float, devices: int) -> Work:
    """The sum over `devices` of one, known to all: every link carries 2 (n - 1) / n of it in 2 (n - 1) transfers.

    The ring of Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms, JPDC 2009.
    """
    return Work("copy", 0.0, 2 * (devices - 1) / devices * byte_count, calls=2.0 * (devices - 1))


def hidden_bytes(model: Model, tokens: float) -> float:
    return tokens * model.hidden * model.element_bytes


def kv_bytes(model: Model, tokens: float) -> float:
    """K and V of `tokens` positions in one layer."""
    return tokens * model.kv_bytes_per_token_layer
