"""A walk through layers with random weights, by the decoder's functions in the order in which runs call them, each
piece timed where it stands: so it finds the processor's caches as in a run, full of the weights of those before it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from typing import Any, Final

import torch
from torch import Tensor

from executor.architecture import Architecture, Rope
from executor.decoder import blocks
from executor.decoder.batch import Batch
from executor.decoder.cache import KvArena, Segment
from executor.decoder.feedforward import Routing
from executor.decoder.numerics import EXACT, argmax
from executor.decoder.products import pack_agreeing
from executor.decoder.rope import Rotation, rotation
from executor.weights import AttentionWeights, ExpertWeights, HeadWeights, PartWeights, Router
from specsim.cost import work as cost
from specsim.cost.shapes import decode_shape
from specsim.cost.work import Work
from specsim.hardware import Op
from specsim.model import Model, from_config

#: layers of a walk; the first is not timed, for in it libraries meet shapes that were not in use
_LAYERS: Final = 3


@dataclass(frozen=True, slots=True)
class Walk:
    """A pass over some layers and the head by `sequences` sequences, each with `context` cached positions and `new`
    more. A model with experts sends its tokens to each of them evenly, and its weights are as they are read; one
    without is resident, as a draft is, so that its weights are laid out for the library."""

    model: Model
    sequences: int
    new: int
    context: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.new

    def pieces(self) -> tuple[Piece, ...]:
        """What of a walk is timed."""
        feed_forward: Op = "expert" if self.model.ffn.is_moe else "dense"
        return Piece("projections", self), Piece("attention", self), Piece(feed_forward, self), Piece("head", self)


@dataclass(frozen=True, slots=True)
class Piece:
    """One operation of a walk with all that runs beside it: norms, residuals, routing; with the head also the choice of
    a token, and what is worked out once for all layers."""

    op: Op
    walk: Walk

    def work(self) -> Work:
        """As the cost model counts it."""
        walk, model = self.walk, self.walk.model
        packed = not model.ffn.is_moe
        if self.op == "attention":
            return cost.attention_core(model, decode_shape(walk.sequences, walk.new, walk.context))
        if self.op == "projections":
            return replace(cost.projections(model, walk.tokens), packed=packed)
        if self.op == "head":
            return cost.head(model, walk.tokens)
        return replace(cost.feed_forward(model, model.ffn, walk.tokens), packed=packed)


class Weights:
    """Matrices out of an arena of words, one behind the other, and from its beginning again at its end."""

    def __init__(self, arena: Tensor) -> None:
        self.arena, self.used = arena, 0
        self._at = 0

    def matrix(self, rows: int, columns: int) -> Tensor:
        """[rows, columns]; the arena holds at least one such matrix."""
        size = rows * columns
        start = self._at if self._at + size <= len(self.arena) else 0
        self._at, self.used = start + size, self.used + size
        return self.arena[start : start + size].view(rows, columns)


class Walker:
    """Walks, every time over the next layers' weights; as many of them as the arena, bf16 [n], has room for.

    `finish` waits for what was only queued.
    """

    def __init__(self, walk: Walk, arena: Tensor, finish: Callable[[], object] = lambda: None) -> None:
        self.walk, self.finish = walk, finish
        self.arch = _architecture(walk.model)
        model, device = walk.model, arena.device
        weights = Weights(arena)
        self._norm = torch.ones(model.hidden, dtype=torch.bfloat16, device=device)
        self._head = HeadWeights(self._norm, weights.matrix(model.vocab, model.hidden))
        head_size = weights.used
        layers = [self._layer(weights)]
        room = (len(arena) - head_size) // (weights.used - head_size)
        self._layers = cycle([*layers, *(self._layer(weights) for _ in range(min(room, 2 * _LAYERS) - 1))])
        self._segments = [Segment(i * walk.new, walk.new, walk.context) for i in range(walk.sequences)]
        length = walk.context + walk.new
        self._kv = KvArena.empty(self.arch, walk.sequences * length, device)
        for kv in self._kv.layers:
            kv.normal_()
        self._caches = [self._kv.take(length) for _ in self._segments]
        self._positions = torch.cat([torch.arange(s.start, s.end, device=device) for s in self._segments])
        self._start = torch.randn((walk.tokens, model.hidden), device=device).to(torch.bfloat16)
        self._even = _even(walk.tokens, model.ffn.experts, model.ffn.top_k, device) if model.ffn.is_moe else None

    def run(self) -> Mapping[Piece, float]:
        """Seconds of each piece, those of layers on the mean of all but the first."""
        projections, attention, feed_forward, head = self.walk.pieces()
        spent: dict[Piece, float] = defaultdict(float)
        with torch.inference_mode():
            hidden, output = self._start, torch.zeros_like(self._start)
            began = self._now()
            batch = Batch(self.arch, EXACT, self._segments, self._caches, hidden.device)
            batch.groups(None)
            turn = rotation(self.arch.rope, self.walk.model.head_dim, self._positions, hidden.dtype)
            prepared = self._now() - began
            for layer in range(_LAYERS):
                hidden, output, seconds = self._walk_layer(layer, hidden, output, batch, turn)
                if layer > 0:
                    for piece, taken in zip((projections, attention, projections, feed_forward), seconds, strict=True):
                        spent[piece] += taken / (_LAYERS - 1)
            for _ in range(2):  # the first time is not counted, as with layers
                began = self._now()
                argmax(blocks.logits(self.arch, EXACT, self._head, hidden))
                spent[head] = prepared + self._now() - began
        return spent

    def _walk_layer(
        self, layer: int, hidden: Tensor, output: Tensor, batch: Batch, turn: Rotation
    ) -> tuple[Tensor, Tensor, list[float]]:
        """The rows after a layer's attention, its FFN's output, and the seconds before the attention core, in it, after
        it, and in the FFN."""
        arch, (attention, router, part) = self.arch, next(self._layers)
        marks = [self._now()]
        hidden = blocks.finish(EXACT, [output], hidden)
        q, k, v = blocks.project_qkv(arch, EXACT, attention, hidden, turn)
        marks.append(self._now())
        heads = blocks.attend(layer, q, k, v, batch, self._kv.layers[layer])
        marks.append(self._now())
        hidden = blocks.project_out(arch, EXACT, attention, heads, hidden)
        normed, routing = blocks.route(arch, EXACT, router, hidden)  # a part of the task of attention
        marks.append(self._now())
        if routing is not None and self._even is not None:
            routing = Routing(self._even, routing.weights)
        output = blocks.accumulator(arch, EXACT, layer, self.walk.tokens, hidden.device)
        blocks.feed_forward(EXACT, part, normed, blocks.dispatch(arch, layer, routing), output)
        marks.append(self._now())
        return hidden, output, [after - before for before, after in pairwise(marks)]

    def _layer(self, weights: Weights) -> tuple[AttentionWeights, Router, PartWeights]:
        model, ffn, norm = self.walk.model, self.walk.model.ffn, self._norm
        h, q, kv = model.hidden, model.heads * model.head_dim, model.kv_heads * model.head_dim
        laid = (lambda weight: weight) if ffn.is_moe else pack_agreeing
        around = [laid(weights.matrix(*shape)) for shape in ((q, h), (kv, h), (kv, h), (h, q))]
        shapes = ((ffn.width, h), (ffn.width, h), (h, ffn.width))
        part = {e: ExpertWeights(*(laid(weights.matrix(*shape)) for shape in shapes)) for e in range(ffn.experts)}
        router = Router(norm, weights.matrix(ffn.experts, h) if ffn.is_moe else None)
        return AttentionWeights(norm, around[0], around[1], around[2], around[3], norm), router, part

    def _now(self) -> float:
        self.finish()
        return time.perf_counter()


def model_of(
    hidden: int, width: int, heads: int, kv_heads: int, head_dim: int, *, vocab: int = 1024, experts: int = 0
) -> Model:
    """A bf16 model of a walk's layers; with experts, each token goes to two."""
    config: dict[str, Any] = {
        "model_type": "mixtral" if experts else "llama",
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
    }
    if experts:
        config |= {"num_local_experts": experts, "num_experts_per_tok": 2}
    return from_config(config, name="probe", where="profile")


def _architecture(model: Model) -> Architecture:
    windows = (None,) * model.layers
    return Architecture(model, rms_eps=1e-5, rope=Rope(1e4), windows=windows, renormalise=False, eos=())


def _even(tokens: int, experts: int, top_k: int, device: torch.device) -> Tensor:
    """Experts [tokens, top_k], ascending, drawn without regard to one another: the same every time."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand((tokens, experts), generator=generator).argsort(dim=1)[:, :top_k]
    return drawn.sort(dim=1).values.to(device)
