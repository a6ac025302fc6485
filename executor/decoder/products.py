"""Products of rows with a weight matrix, in the shapes that a CPU's library is fast at, and which of them agree.

In 16 bits the library repacks the operand on the right, unless that was done before (packed.py). `x @ weight.T` repacks
the weights, which for a few rows costs more than the product; `weight @ x.T` repacks the rows. All of them add up the
same terms, and most heights of a product, in the same order, so that EXACT can take whichever is fast once it has been
seen to give the same bits.
"""

from __future__ import annotations

import functools
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from executor.decoder.packed import Packed, Weight, pack, packable, packed_product
from executor.decoder.remembered import remembered

#: types whose products one library computes, in an order that depends on shapes only. Float32's depends on where the
#: matrices lie in memory too.
NARROW: Final = (torch.bfloat16, torch.float16)
#: rows of EXACT's products, to which every other height is compared
TILE: Final = 32
#: rows of a product at most: more are not faster
MOST_ROWS: Final = 512
#: elements of a weight matrix that `invariant` takes at once: a trial makes up another of its size, and what it is
#: compared with, 20 MB at most
MOST_WEIGHTS: Final = 4 << 20
#: up to so many rows the weights are the operand to repack where they have more rows than columns: a quarter less time
#: than the other way at 2 to 8 rows of 3584 x 1024, and 30 to 60 % more where they have fewer
FEW_ROWS: Final = 8
#: how a product's operands lie in memory: the rows one by one or column by column, or the weights packed
Layout = Literal["rows", "columns", "packed"]
#: from so many rows on both ways are alike, and the first leaves rows where they are wanted
MANY_ROWS: Final = 256


def height(rows: int) -> int:
    """The rows that a product of `rows` is best made of: at least as many, of heights few enough to try them all."""
    if rows <= FEW_ROWS:
        return rows
    step = 16 if rows <= 128 else 32
    return -(-rows // step) * step


def best_rows(rows: int, x: Tensor) -> int:
    """How many rows, counting some to be dropped, are quickest where `rows` of x's kind are wanted."""
    return height(rows) if _repacked(x) else rows


def product(x: Tensor, weight: Weight) -> Tensor:
    """x [T, in] times weight [out, in] transposed: [T, out], which may lie in memory column by column."""
    if isinstance(weight, Packed):
        return packed_product(x, weight)
    rows, (outputs, inputs) = x.shape[0], weight.shape
    if not _repacked(x) or rows >= MANY_ROWS or (1 < rows <= FEW_ROWS and outputs > inputs):
        return functional.linear(x, weight)
    return torch.mm(weight, x.T).T


def tiled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product plus bias [out], `TILE` rows at a time, the last tile filled with zeros: a row's result depends on no
    other row."""
    y = x.new_empty(x.shape[0], weight.shape[0])
    # One by one: a product of all tiles shares the sums of each among threads by how many tiles there are.
    for first in range(0, x.shape[0], TILE):
        tile = x[first : first + TILE]
        y[first : first + TILE] = functional.linear(_filled(tile, TILE).contiguous(), weight, bias)[: tile.shape[0]]
    return y


def invariant(x: Tensor, weight: Weight) -> Tensor:
    """As `tiled`, bit for bit, but in fewer and larger products where these have been seen to agree with it."""
    rows, (outputs, inputs) = x.shape[0], weight.shape
    if rows > MOST_ROWS:
        return torch.cat([invariant(some, weight) for some in torch.split(x, MOST_ROWS)])
    if isinstance(weight, Packed):
        if len(weight.blocks) > 1:
            return torch.cat([invariant(x, some) for some in weight.split()], dim=1)
        agreed = _agreeing(x.dtype, outputs, inputs, height(rows), "packed", torch.get_num_threads())
        if agreed is None:  # with another number of threads than when it was packed: still the same in every batch
            return torch.cat([packed_product(_filled(some, TILE), weight) for some in torch.split(x, TILE)])[:rows]
        return packed_product(_filled(x, agreed), weight)[:rows]
    if outputs > _block_rows(inputs):
        return torch.cat([invariant(x, some) for some in torch.split(weight, _block_rows(inputs))], dim=1)
    if not rows or not _repacked(x):
        return tiled(x, weight)
    if height(rows) > rows or not x.T.is_contiguous():
        x = _filled(x, height(rows)).contiguous()
    layout: Layout = "rows" if x.is_contiguous() else "columns"
    agreed = _agreeing(x.dtype, outputs, inputs, x.shape[0], layout, torch.get_num_threads())
    if agreed is None:
        return tiled(x[:rows], weight)
    return product(_filled(x, agreed), weight)[:rows]


def pack_agreeing(weight: Weight) -> Weight:
    """The weight [out, in] laid out for whoever keeps it; itself where the library does not do that, or its bits would
    be others."""
    if isinstance(weight, Packed) or not packable(weight):
        return weight
    packed, threads = pack(weight, _block_rows(weight.shape[1])), torch.get_num_threads()
    agree = (_agreeing(weight.dtype, *some.shape, MOST_ROWS, "packed", threads) for some in packed.split())
    return weight if None in agree else packed


def _block_rows(inputs: int) -> int:
    return max(TILE, MOST_WEIGHTS // inputs)


def _repacked(x: Tensor) -> bool:
    return x.dtype in NARROW and x.device.type == "cpu"


def _filled(x: Tensor, rows: int) -> Tensor:
    """x with rows of zeros behind it, up to `rows`."""
    return x if x.shape[0] == rows else functional.pad(x, (0, 0, 0, rows - x.shape[0]))


@functools.lru_cache(maxsize=4096)
def _agreeing(dtype: torch.dtype, outputs: int, inputs: int, rows: int, layout: Layout, threads: int) -> int | None:
    """The least height of `rows` or more, up to `MOST_ROWS`, at which `product` is `tiled`; None if there is none."""
    question = f"{str(dtype).removeprefix('torch.')} {outputs} by {inputs} {rows} {layout} {threads} threads"
    return remembered(
        question,
        lambda: _tried(dtype, outputs, inputs, rows, layout),
        lambda answer: rows <= answer <= MOST_ROWS and answer == height(answer),
    )


def _tried(dtype: torch.dtype, outputs: int, inputs: int, rows: int, layout: Layout) -> int | None:
    while rows <= MOST_ROWS:
        if _agrees(dtype, outputs, inputs, rows, layout):
            return rows
        rows, layout = height(rows + 1), "rows" if layout == "columns" else layout
    return None


def _agrees(dtype: torch.dtype, outputs: int, inputs: int, rows: int, layout: Layout) -> bool:
    """Whether `product` of `rows` rows in this layout gives each the same bits as `tiled`.

    A trial decides it for all data: the library chooses blocks and order by shape, layout and threads alone, and the
    order shows. Each sum is of terms that cancel to exactly 0, so that what is left of it is the rounding of its
    partial sums and nothing else: sums in another order differ in their leading bits.
    """
    generator = torch.Generator().manual_seed(0)
    half = inputs // 2
    if half == 0 or inputs % 2:
        return False
    # Weights repeat with the opposite sign half a row on, rows with the same sign. Each weight row is the one before
    # it moved on by one. The terms are shuffled, so that no part of a sum is the mirror of another and cancels as well.
    turn = torch.randn(half, generator=generator).pow(3)
    turns = torch.cat((turn, -turn)).to(dtype).repeat(-(-(outputs + inputs) // inputs) + 1)
    shuffled = torch.randperm(inputs, generator=generator)
    weight = turns.as_strided((outputs, inputs), (1, 1)).index_select(1, shuffled)
    x = torch.randn((rows, half), generator=generator).pow(3).to(dtype).repeat(1, 2).index_select(1, shuffled)
    made = product(x.T.contiguous().T if layout == "columns" else x, pack(weight) if layout == "packed" else weight)
    return torch.equal(made, tiled(x, weight))
