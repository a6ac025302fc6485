"""Two ways to compute the same numbers: EXACT, whose rows do not depend on their batch, and FAST.

A matrix library picks its kernel by the number of rows, so that a token's last bits change with the batch that it is
in, and with them, now and then, the token that comes next. EXACT computes every product in tiles of one fixed shape,
in which a row's result depends on that row only, and leaves out operations whose vectorised and scalar versions
differ. Then, on one processor with one number of threads, a token depends on its own sequence only: not on its
batch, on how rows are split, or on how many positions are verified at once. FAST promises closeness only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

#: Narrower products run another kernel on CPUs, whose rows depend on where they lie in a tile and in memory.
MIN_OUTPUTS: Final = 16
#: rows that are normalised at once: what is held in float32 meanwhile does not grow with the batch
NORM_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class Numerics:
    """`row_tile`: rows of a product (None: all at once). `query_tile`, `kv_block`: rows and cached positions of a
    tile of attention (None: any). `accumulate`: the dtype in which experts' outputs are summed."""

    name: str
    accumulate: torch.dtype
    row_tile: int | None = None
    query_tile: int | None = None
    kv_block: int | None = None

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, in] times weight [out, in] transposed, plus bias [out]: [T, out]."""
        if self.row_tile is None:
            return functional.linear(x, weight, bias)
        outputs = weight.shape[0]
        if outputs < MIN_OUTPUTS:
            weight = functional.pad(weight, (0, 0, 0, MIN_OUTPUTS - outputs))
            bias = functional.pad(bias, (0, MIN_OUTPUTS - outputs)) if bias is not None else None
        y = x.new_empty(x.shape[0], outputs)
        for first in range(0, x.shape[0], self.row_tile):
            tile = x[first : first + self.row_tile]
            rows = tile.shape[0]
            if rows < self.row_tile:
                tile = functional.pad(tile, (0, 0, 0, self.row_tile - rows))
            y[first : first + rows] = functional.linear(tile, weight, bias)[:rows, :outputs]
        return y

    def silu_(self, x: Tensor) -> Tensor:
        """x sigmoid(x) of x [T, f], in place."""
        if self.row_tile is None:
            return functional.silu(x, inplace=True)
        # torch's silu rounds the elements of a vector and those left over at the end differently; its exp does not.
        for rows in torch.split(x, self.row_tile):
            wide = rows.float()
            rows.copy_(wide / (1 + torch.exp(-wide)))
        return x


#: 32 rows reach two thirds of a CPU's speed at large products, and waste little of it at a decode step's few rows.
EXACT: Final = Numerics("exact", torch.float64, row_tile=32, query_tile=16, kv_block=64)
FAST: Final = Numerics("fast", torch.float32)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467), the mean in float32."""
    y = torch.empty_like(x)
    for rows, into in zip(torch.split(x, NORM_ROWS), torch.split(y, NORM_ROWS), strict=True):
        wide = rows.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        torch.mul(weight, wide.to(x.dtype), out=into)
    return y


def argmax(logits: Tensor) -> Tensor:
    """The token of the highest logit of each row of [R, V], the lowest index among equals: [R] int64."""
    return torch.argmax(logits, dim=-1)  # promises the first of several maxima
