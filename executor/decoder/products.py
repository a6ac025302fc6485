"""Products of rows with a weight matrix, in the shapes that a CPU's library is fast at, and which of them agree.

In 16 bits the library repacks the operand on the right, unless that was done before (packed.py). `x @ weight.T` repacks
the weights, which for a few rows costs more than the product; `weight @ x.T` repacks the rows. All of them add up the
same terms, and most heights of a product, in the same order, so that EXACT can take whichever is fast once it has been
seen to give the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from executor.decoder.packed import ROWS, Packed, Weight, pack, packable, packed_product

#: types whose products one library computes, in an order that depends on shapes only. Float32's depends on where the
#: matrices lie in memory too.
NARROW: Final = (torch.bfloat16, torch.float16)
#: rows of EXACT's products, to which every other height is compared
TILE: Final = 32
#: rows of a product at most: more are not faster
MOST_ROWS: Final = 512
#: elements of a weight matrix that `invariant` takes at once: a trial makes up another of its size and `MOST_ROWS` rows
#: in and out, 30 MB at most
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
        agreed = _agreed(x, outputs, rows, "packed")
        if agreed is None:  # with another number of threads than when it was packed: still the same in every batch
            return torch.cat([packed_product(_filled(some, TILE), weight) for some in torch.split(x, TILE)])[:rows]
        return packed_product(_filled(x, agreed), weight)[:rows]
    if outputs > _block_rows(inputs):
        return torch.cat([invariant(x, some) for some in torch.split(weight, _block_rows(inputs))], dim=1)
    if not rows or not _repacked(x):
        return tiled(x, weight)
    x = _filled(x, height(rows))
    by_columns = not x.is_contiguous() and x.T.is_contiguous()
    if by_columns and x.shape[0] in _agreeing(x.dtype, outputs, inputs, "columns", torch.get_num_threads()):
        return product(x, weight)[:rows]
    agreed = _agreed(x, outputs, rows, "rows")
    return tiled(x[:rows], weight) if agreed is None else product(_filled(x.contiguous(), agreed), weight)[:rows]


def pack_agreeing(weight: Weight) -> Weight:
    """The weight [out, in] laid out for whoever keeps it; itself where the library does not do that, or its bits would
    be others."""
    if isinstance(weight, Packed) or not packable(weight):
        return weight
    packed, threads = pack(weight, _block_rows(weight.shape[1], ROWS)), torch.get_num_threads()
    agree = (MOST_ROWS in _agreeing(weight.dtype, *some.shape, "packed", threads) for some in packed.split())
    return packed if all(agree) else weight


def try_heights(dtype: torch.dtype, shapes: Iterable[tuple[int, int]], *, packed: bool = False) -> None:
    """Find out now, with as many threads as this one computes with, what `invariant` will ask of weights of these
    shapes [out, in]: 0.1 to 0.3 s for each of some million elements."""
    layouts: tuple[Layout, ...] = ("packed",) if packed else ("rows", "columns")
    for outputs, inputs in shapes if dtype in NARROW else ():
        rows = _block_rows(inputs, ROWS if packed else 1)
        for block in {min(rows, outputs), outputs % rows or min(rows, outputs)}:
            for layout in layouts:
                _agreeing(dtype, block, inputs, layout, torch.get_num_threads())


def _block_rows(inputs: int, multiple: int = 1) -> int:
    """Rows of a weight that are taken at once."""
    return max(TILE, multiple, MOST_WEIGHTS // inputs // multiple * multiple)


def _repacked(x: Tensor) -> bool:
    return x.dtype in NARROW and x.device.type == "cpu"


def _filled(x: Tensor, rows: int) -> Tensor:
    """x with rows of zeros behind it, up to `rows`."""
    return x if x.shape[0] == rows else functional.pad(x, (0, 0, 0, rows - x.shape[0]))


def _agreed(x: Tensor, outputs: int, rows: int, layout: Layout) -> int | None:
    """The least height of `rows` or more at which products of x's kind are `tiled`; None if there is none."""
    agreeing = _agreeing(x.dtype, outputs, x.shape[1], layout, torch.get_num_threads())
    return next((some for some in agreeing if some >= rows), None)


@functools.lru_cache(maxsize=256)
def _agreeing(dtype: torch.dtype, outputs: int, inputs: int, layout: Layout, threads: int) -> tuple[int, ...]:
    """The heights, up to `MOST_ROWS`, at which `product` of rows in this layout gives each the same bits as `tiled`.

    A trial decides it for all data: the library chooses blocks and order by shape, layout and threads alone, and the
    order shows. Each sum is of terms that cancel to exactly 0, so that what is left of it is the rounding of its
    partial sums and nothing else: sums in another order differ in their leading bits.
    """
    generator = torch.Generator().manual_seed(0)
    half = inputs // 2
    if half == 0 or inputs % 2:
        return ()
    # Weights repeat with the opposite sign half a row on, rows with the same sign. Each weight row is the one before
    # it moved on by one. The terms are shuffled, so that no part of a sum is the mirror of another and cancels as well.
    turn = torch.randn(half, generator=generator).pow(3)
    turns = torch.cat((turn, -turn)).to(dtype).repeat(-(-(outputs + inputs) // inputs) + 1)
    shuffled = torch.randperm(inputs, generator=generator)
    weight = turns.as_strided((outputs, inputs), (1, 1)).index_select(1, shuffled)
    x = torch.randn((MOST_ROWS, half), generator=generator).pow(3).to(dtype).repeat(1, 2).index_select(1, shuffled)
    expected, laid = tiled(x, weight), pack(weight) if layout == "packed" else weight

    def made(rows: int) -> Tensor:
        return product(x[:rows].T.contiguous().T if layout == "columns" else x[:rows], laid)

    return tuple(rows for rows in _heights() if torch.equal(made(rows), expected[:rows]))


def _heights() -> list[int]:
    return sorted({height(rows) for rows in range(1, MOST_ROWS + 1)})
