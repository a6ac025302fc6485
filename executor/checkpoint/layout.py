"""Which bytes of a checkpoint a unit is, where they lie in a buffer, and the weights as views of that buffer.

Units are those of specsim.partition. A layout is `packed`, for a unit that stays, or `direct`, for one that is read
into a slot of a ring as it lies on the disk, in aligned blocks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from executor.architecture import TORCH_DTYPE
from executor.checkpoint.checkpoint import Checkpoint
from executor.checkpoint.names import (
    MATRICES,
    Role,
    Shape,
    Source,
    attention_sources,
    embedding_sources,
    expert_sources,
    head_sources,
)
from executor.weights import AttentionWeights, ExpertWeights, HeadWeights
from specsim.model import DTYPE_BYTES
from specsim.partition import BLOCK as BLOCK  # which readers of layouts need too
from specsim.partition import LINE


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file: `nbytes` from `offset`."""

    file: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One weight of a unit: `role` is the field of executor.weights that it fills, and for experts which one."""

    role: Role
    span: Span
    dtype: torch.dtype
    shape: Shape


@dataclass(frozen=True, slots=True)
class Unit:
    """What moves between memories as one."""

    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Of the weights alone, as specsim counts them."""
        return sum(piece.span.nbytes for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Extent:
    """Whole blocks of a file that hold pieces: `nbytes` from `start` belong at offset `at` of the buffer. All three are
    multiples of BLOCK; the pieces end `used` bytes from `start`, and the file may end between the two."""

    file: Path
    start: int
    nbytes: int
    at: int
    used: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A unit in a buffer of `nbytes`: piece i lies at `offsets[i]`. A direct layout has the extents to read."""

    unit: Unit
    offsets: tuple[int, ...]
    nbytes: int
    extents: tuple[Extent, ...] = ()


def attention_unit(checkpoint: Checkpoint, layer: int) -> Unit:
    """A layer's attention, its two norms and, in a mixture, the router."""
    return _unit(checkpoint, attention_sources(checkpoint.architecture.model, layer, checkpoint.tensors))


def ffn_unit(checkpoint: Checkpoint, layer: int, part: int, parts: int, experts: Collection[int] | None = None) -> Unit:
    """Part `part` of the `parts` of a layer's FFN: with g = ceil(E / parts), the experts [part g, (part + 1) g), and of
    these only the ones in `experts` where that is given. A dense FFN has 1 part, or 3: gate, up, down."""
    if not 0 <= part < parts:
        raise ValueError(f"part {part} of {parts}")
    model, tensors = checkpoint.architecture.model, checkpoint.tensors
    ffn = model.layer_ffn(layer)
    if not ffn.is_moe:
        sources = expert_sources(model, layer, 0, tensors)
        if parts == 1:
            return _unit(checkpoint, sources)
        if parts != len(MATRICES):
            raise ValueError(f"a dense FFN in {parts} parts")
        role = (MATRICES[part], 0)
        return _unit(checkpoint, {role: sources[role]})
    group = math.ceil(ffn.experts / parts)
    held = range(part * group, min((part + 1) * group, ffn.experts))
    wanted = held if experts is None else sorted(set(held) & set(experts))
    return _unit(checkpoint, {r: s for e in wanted for r, s in expert_sources(model, layer, e, tensors).items()})


def head_unit(checkpoint: Checkpoint) -> Unit:
    """The final norm and the output projection, which is the embedding where the two are tied."""
    return _unit(checkpoint, head_sources(checkpoint.architecture.model))


def embedding_unit(checkpoint: Checkpoint) -> Unit:
    return _unit(checkpoint, embedding_sources(checkpoint.architecture.model))


def packed(unit: Unit) -> Layout:
    """One piece after another, each on a cache line."""
    offsets, end = [], 0
    for piece in unit.pieces:
        offsets.append(end)
        end = _up(end + piece.span.nbytes, LINE)
    return Layout(unit, tuple(offsets), end)


def direct(unit: Unit) -> Layout:
    """The blocks that hold the pieces, as they lie in the files; pieces whose blocks touch share an extent."""
    extents: list[Extent] = []
    offsets: dict[Role, int] = {}
    for piece in sorted(unit.pieces, key=lambda piece: (str(piece.span.file), piece.span.offset)):
        span = piece.span
        start, end = span.offset // BLOCK * BLOCK, span.offset + span.nbytes
        last = extents.pop() if extents else None
        if last is not None and (last.file != span.file or start > last.start + last.nbytes):
            extents.append(last)
            last = Extent(span.file, start, 0, last.at + last.nbytes, 0)
        elif last is None:
            last = Extent(span.file, start, 0, 0, 0)
        used = end - last.start
        extents.append(Extent(last.file, last.start, _up(used, BLOCK), last.at, used))
        offsets[piece.role] = last.at + span.offset - last.start
    nbytes = extents[-1].at + extents[-1].nbytes if extents else 0
    return Layout(unit, tuple(offsets[piece.role] for piece in unit.pieces), nbytes, tuple(extents))


def attention_weights(layout: Layout, buffer: Tensor) -> AttentionWeights:
    """Views of `buffer`, 1-D uint8 on any device. So of the three below too."""
    return AttentionWeights(**{str(role): view for role, view in _views(layout, buffer).items()})


def part_weights(layout: Layout, buffer: Tensor) -> dict[int, ExpertWeights]:
    """The experts of a part of an FFN by their index in the layer."""
    experts: dict[int, dict[str, Tensor]] = {}
    for role, view in _views(layout, buffer).items():
        assert isinstance(role, tuple), f"{role} is no expert's"
        matrix, expert = role
        experts.setdefault(expert, {})[matrix] = view
    return {expert: ExpertWeights(**matrices) for expert, matrices in experts.items()}


def head_weights(layout: Layout, buffer: Tensor) -> HeadWeights:
    views = _views(layout, buffer)
    return HeadWeights(norm=views["norm"], output=views["output"])


def embedding_weights(layout: Layout, buffer: Tensor) -> Tensor:
    """[V, h]"""
    return _views(layout, buffer)["embedding"]


def _unit(checkpoint: Checkpoint, sources: Mapping[Role, Source]) -> Unit:
    dtype = checkpoint.architecture.model.dtype
    element = DTYPE_BYTES[dtype]
    return Unit(tuple(_piece(checkpoint, role, source, dtype, element) for role, source in sources.items()))


def _piece(checkpoint: Checkpoint, role: Role, source: Source, dtype: str, element: int) -> Piece:
    tensor = checkpoint.tensors[source.tensor]
    span = Span(tensor.file, tensor.offset + source.first * element, math.prod(source.shape) * element)
    return Piece(role, span, TORCH_DTYPE[dtype], source.shape)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _views(layout: Layout, buffer: Tensor) -> dict[Role, Tensor]:
    return {
        piece.role: _view(buffer[offset : offset + piece.span.nbytes], piece)
        for piece, offset in zip(layout.unit.pieces, layout.offsets, strict=True)
    }


def _view(raw: Tensor, piece: Piece) -> Tensor:
    # torch views only what starts at a whole element; safetensors files written by others may not keep to that
    if raw.storage_offset() % piece.dtype.itemsize:
        raw = raw.clone()
    return raw.view(piece.dtype).view(piece.shape)
