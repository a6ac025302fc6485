"""A whole model in one memory: the draft, and the plain decoder that everything else is compared with."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from executor.architecture import Architecture
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.checkpoint.layout import (
    Layout,
    Unit,
    attention_unit,
    attention_weights,
    embedding_unit,
    embedding_weights,
    ffn_unit,
    head_unit,
    head_weights,
    packed,
    part_weights,
)
from executor.checkpoint.read import Reader, aligned_buffer
from executor.decoder import blocks
from executor.decoder.batch import Batch
from executor.decoder.cache import Segment, SequenceCache, alone
from executor.decoder.numerics import Numerics, argmax
from executor.decoder.packed import Packed
from executor.decoder.products import pack_agreeing
from executor.decoder.rope import rotation
from executor.weights import AttentionWeights, ExpertWeights, HeadWeights, PartWeights
from specsim.decision import CHUNK_TOKENS
from specsim.errors import InputError

CPU: Final = torch.device("cpu")

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, eq=False)
class ResidentModel:
    """`layers`: each layer's attention and the parts of its FFN, which computes at most `chunk_tokens` rows at once."""

    arch: Architecture
    layers: list[tuple[AttentionWeights, list[PartWeights]]]
    embedding: Tensor  # [V, h]
    head: HeadWeights
    numerics: Numerics
    chunk_tokens: int = CHUNK_TOKENS

    def forward(
        self, ids: Tensor, segments: Sequence[Segment], caches: Sequence[SequenceCache], rows: Tensor
    ) -> Tensor:
        """Logits [R, V] float32 of those `rows` [R] of the packed tokens `ids` [T] that need them.

        Writes K and V at the segments' positions, in the one arena that all caches are of. What of that is valid is the
        caller's to say: it assigns `length`.
        """
        arch, numerics = self.arch, self.numerics
        positions = torch.tensor(list(chain.from_iterable(range(s.start, s.end) for s in segments)), device=ids.device)
        turn = rotation(arch.rope, arch.model.head_dim, positions, arch.dtype)
        batch = Batch(arch, numerics, segments, caches, ids.device)
        hidden = blocks.embed(self.embedding, ids)
        for layer, (attention, parts) in enumerate(self.layers):
            q, k, v = blocks.project_qkv(arch, numerics, attention, hidden, turn)
            heads = blocks.attend(layer, q, k, v, batch, caches[0].arena.layers[layer])
            hidden = blocks.project_out(arch, numerics, attention, heads, hidden)
            normed, routing = blocks.route(arch, numerics, attention, hidden)
            sent = blocks.dispatch(arch, layer, routing)
            into = blocks.accumulator(arch, numerics, layer, len(ids), ids.device)
            inner = None
            if sent is None and len(parts) > 1:
                inner = normed.new_empty(len(ids), arch.model.layer_ffn(layer).width)
            for part in parts:
                blocks.feed_forward(numerics, part, normed, sent, into, inner, most_rows=self.chunk_tokens)
            hidden = blocks.finish(numerics, [into], hidden)
        return blocks.logits(arch, numerics, self.head, hidden[rows])


def load_resident(
    checkpoint: Checkpoint | str | Path, numerics: Numerics, device: torch.device = CPU, reader: Reader | None = None
) -> ResidentModel:
    """Read all weights of a checkpoint into the memory of `device`, with `reader` or one of its own. Raises InputError
    as opening and reading it do."""
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = open_checkpoint(checkpoint)
    if reader is None:
        with closing(Reader()) as own:
            return load_resident(checkpoint, numerics, device, own)

    def load(unit: Unit) -> tuple[Layout, Tensor]:
        layout = packed(unit)
        buffer = aligned_buffer(layout.nbytes)
        reader.read_pieces(layout, buffer)
        return layout, buffer.to(device)

    arch = checkpoint.architecture
    head = head_weights(*load(head_unit(checkpoint)))
    table = head.output if arch.model.tied else embedding_weights(*load(embedding_unit(checkpoint)))
    layers: list[tuple[AttentionWeights, list[PartWeights]]] = [
        (
            _pack_attention(attention_weights(*load(attention_unit(checkpoint, layer)))),
            [_pack_experts(part_weights(*load(ffn_unit(checkpoint, layer, part=0, parts=1))))],
        )
        for layer in range(arch.model.layers)
    ]
    return ResidentModel(arch, layers, table, head, numerics)


def _pack_attention(weights: AttentionWeights) -> AttentionWeights:
    """With the projections that have no bias laid out for the library."""
    fields = {name: getattr(weights, name) for name in AttentionWeights.__dataclass_fields__}
    return AttentionWeights(**_pack(fields, {name for name in "qkvo" if fields[f"{name}_bias"] is None}))


def _pack_experts(part: PartWeights) -> PartWeights:
    """With all matrices laid out for the library."""
    names = ("gate", "up", "down")
    fields = {(i, name): getattr(expert, name) for i, expert in part.items() for name in names}
    packed = _pack(fields, fields.keys())
    return {i: ExpertWeights(*(packed[i, name] for name in names)) for i in part}


def _pack(fields: Mapping[K, Any], matrices: Collection[K]) -> dict[K, Any]:
    """The tensors of a unit with its `matrices` laid out for the library; if any of them is, copies of the others, so
    that what was read of the unit can go."""
    packed = {name: pack_agreeing(of) if name in matrices and of is not None else of for name, of in fields.items()}
    if not any(isinstance(of, Packed) for of in packed.values()):
        return dict(fields)
    return {name: of.clone() if isinstance(of, Tensor) else of for name, of in packed.items()}


def generate_greedy(model: ResidentModel, prompt: list[int], max_new: int) -> list[int]:
    """The most likely tokens after `prompt`, one at a time, up to `max_new` or an end token, which is included."""
    if not prompt:
        raise InputError("the prompt is empty", hint="give at least one token")
    device = model.embedding.device
    cache = alone(model.arch, len(prompt) + max_new, device)
    generated: list[int] = []
    feed = prompt
    while len(generated) < max_new and not (generated and generated[-1] in model.arch.eos):
        segment = Segment(0, len(feed), cache.length)
        last = torch.tensor([len(feed) - 1], device=device)
        logits = model.forward(torch.tensor(feed, device=device), [segment], [cache], last)
        cache.length = segment.end
        feed = [int(argmax(logits))]
        generated += feed
    return generated
