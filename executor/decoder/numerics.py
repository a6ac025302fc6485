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
#: rows of hidden states, and of an FFN's wider intermediate, whose float32 copies are held at once
NORM_ROWS: Final = 1024
WIDE_ROWS: Final = 256


@dataclass(frozen=True, slots=True)
class Numerics:
    """`accumulate`: the dtype in which experts' outputs are summed. `row_tile`: rows of a product; None: all at once,
    and attention in any tiles."""

    name: str
    accumulate: torch.dtype
    row_tile: int | None = None

    @property
    def exact(self) -> bool:
        return self.row_tile is not None

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [T, in] times weight [out, in] transposed, plus bias [out]: [T, out]."""
        if self.row_tile is None:
            return functional.linear(x, weight, bias)
        outputs = weight.shape[0]
        if outputs < MIN_OUTPUTS:
            weight = functional.pad(weight, (0, 0, 0, MIN_OUTPUTS - outputs))
            bias = functional.pad(bias, (0, MIN_OUTPUTS - outputs)) if bias is not None else None
        y = x.new_empty(x.shape[0], outputs)
        # One by one: a product of all tiles shares the sums of each among threads by how many tiles there are.
        for first in range(0, x.shape[0], self.row_tile):
            tile = x[first : first + self.row_tile]
            rows = tile.shape[0]
            if rows < self.row_tile:
                tile = functional.pad(tile, (0, 0, 0, self.row_tile - rows))
            y[first : first + rows] = functional.linear(tile, weight, bias)[:rows, :outputs]
        return y

    def silu_(self, x: Tensor) -> Tensor:
        """x sigmoid(x) of x [T, f], in place."""
        if not self.exact:
            return functional.silu(x, inplace=True)
        # torch's silu rounds the elements of a vector and those left over at the end differently; its exp does not.
        for rows in torch.split(x, WIDE_ROWS):
            wide = rows.float()
            rows.copy_(wide / wide.neg().exp_().add_(1))
        return x


#: 32 rows reach two thirds of a CPU's speed at large products, and waste little of it at a decode step's few rows.
EXACT: Final = Numerics("exact", torch.float64, row_tile=32)
FAST: Final = Numerics("fast", torch.float32)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467), the mean in float32."""
    y = torch.empty_like(x)
    for rows, into in zip(torch.split(x, NORM_ROWS), torch.split(y, NORM_ROWS), strict=True):
        torch.mul(weight, functional.rms_norm(rows, rows.shape[-1:], eps=eps), out=into)
    return y


def argmax(logits: Tensor) -> Tensor:
    """The token of the highest logit of each row of [R, V], the lowest index among equals: [R] int64."""
    return torch.argmax(logits, dim=-1)  # promises the first of several maxima
