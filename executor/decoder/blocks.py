"""The steps of a token through the model, each a pure function of weights and rows, in this order:

`embed`, then in every layer `project_qkv`, `attend`, `project_out`, `route`, `dispatch`, `feed_forward` (part by part)
and `finish`, then `logits`. The attention core and the FFN have rooms of their own, attention.py and feedforward.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from executor.architecture import Architecture
from executor.decoder.attention import attend
from executor.decoder.feedforward import Dispatch, Routing, accumulator, dispatch, feed_forward, finish, route
from executor.decoder.numerics import Numerics, rms_norm
from executor.decoder.rope import Rotation, rotate
from executor.weights import AttentionWeights, HeadWeights
from specsim.memory import LOGITS_COLUMNS
from specsim.positions import LOGITS_ROWS

__all__ = [
    "Dispatch",
    "Routing",
    "accumulator",
    "attend",
    "dispatch",
    "embed",
    "feed_forward",
    "finish",
    "logits",
    "project_out",
    "project_qkv",
    "route",
]


def embed(table: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` [T] of the table [V, h]: [T, h]."""
    return functional.embedding(ids, table)


def project_qkv(
    arch: Architecture, numerics: Numerics, w: AttentionWeights, hidden: Tensor, rotation: Rotation
) -> tuple[Tensor, Tensor, Tensor]:
    """Of hidden [T, h]: queries [T, n_q, d], keys and values [T, n_kv, d], the first two turned by their positions'
    `rotation`, which all layers share."""
    model = arch.model
    x = rms_norm(hidden, w.norm, arch.rms_eps)
    q = numerics.linear(x, w.q, w.q_bias).view(-1, model.heads, model.head_dim)
    k = numerics.linear(x, w.k, w.k_bias).view(-1, model.kv_heads, model.head_dim)
    v = numerics.linear(x, w.v, w.v_bias).view(-1, model.kv_heads, model.head_dim)
    if w.q_norm is not None:
        q = rms_norm(q, w.q_norm, arch.rms_eps)
    if w.k_norm is not None:
        k = rms_norm(k, w.k_norm, arch.rms_eps)
    return rotate(q, *rotation), rotate(k, *rotation), v


def project_out(arch: Architecture, numerics: Numerics, w: AttentionWeights, heads: Tensor, hidden: Tensor) -> Tensor:
    """The attention's output [T, n_q d] projected and added to the residual stream [T, h]."""
    return hidden + numerics.linear(heads, w.o, w.o_bias)


def logits(arch: Architecture, numerics: Numerics, w: HeadWeights, hidden: Tensor) -> Tensor:
    """Of hidden [R, h]: [R, V] float32. Where that is too much to hold, call it with fewer rows."""
    out = torch.empty((hidden.shape[0], w.output.shape[0]), dtype=torch.float32, device=hidden.device)
    for rows, into in zip(torch.split(hidden, LOGITS_ROWS), torch.split(out, LOGITS_ROWS), strict=True):
        normed = rms_norm(rows, w.norm, arch.rms_eps)
        columns = torch.split(into, LOGITS_COLUMNS, dim=1), torch.split(w.output, LOGITS_COLUMNS)
        for some, weight in zip(*columns, strict=True):
            some.copy_(numerics.linear(normed, weight))
    return out
