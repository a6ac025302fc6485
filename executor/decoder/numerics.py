"""Two ways to compute the same numbers: EXACT, whose rows do not depend on their batch, and FAST.

A matrix library picks its kernel by the number of rows, so that a token's last bits change with the batch that it is
in, and with them, now and then, the token that comes next. EXACT computes every product as tiles of one fixed shape
would, in which a row's result depends on that row only, and leaves out operations whose vectorised and scalar versions
differ. Then, on one processor with one number of threads, a token depends on its own sequence only: not on its
batch, on how rows are split, or on how many positions are verified at once. FAST promises closeness only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from executor.decoder.packed import Packed, Weight
from executor.decoder.products import invariant, product, tiled

#: Narrower products run another kernel on CPUs, whose rows depend on where they lie in a tile and in memory.
MIN_OUTPUTS: Final = 16
#: rows of hidden states, and of an FFN's wider intermediate, whose float32 copies are held at once
NORM_ROWS: Final = 1024
WIDE_ROWS: Final = 256
#: elements that torch's elementwise loops take at once, or a multiple; and a multiple of these that one thread does,
#: less than the 32,768 from which on torch deals elements to threads
VECTOR: Final = 64
MAX_SERIAL: Final = 511 * VECTOR


@dataclass(frozen=True, slots=True)
class Numerics:
    """`exact`: rows do not depend on their batch. `accumulate`: the dtype in which more than two experts' outputs are
    summed; the sum of two does not depend on their order in any."""

    name: str
    accumulate: torch.dtype
    exact: bool

    def linear(self, x: Tensor, weight: Weight, bias: Tensor | None = None) -> Tensor:
        """x [T, in] times weight [out, in] transposed, plus bias [out]: [T, out], maybe stored column by column."""
        if isinstance(weight, Packed):
            assert bias is None, "only what has no bias is packed"
            return invariant(x, weight) if self.exact else product(x, weight)
        if not self.exact:
            return product(x, weight) if bias is None else functional.linear(x, weight, bias)
        outputs = weight.shape[0]
        if outputs < MIN_OUTPUTS:
            weight = functional.pad(weight, (0, 0, 0, MIN_OUTPUTS - outputs))
            bias = functional.pad(bias, (0, MIN_OUTPUTS - outputs)) if bias is not None else None
        y = invariant(x, weight) if bias is None else tiled(x, weight, bias)
        return y[:, :outputs]

    def silu_(self, x: Tensor) -> Tensor:
        """x sigmoid(x) of x [T, f], in place."""
        if not self.exact:
            return functional.silu(x, inplace=True)
        # torch's silu rounds the elements of a vector and those left over at the end differently; its exp does not.
        if x.shape[1] % VECTOR == 0:
            dense = x if x.is_contiguous() or x.T.is_contiguous() else x.contiguous()
            flat = (dense if dense.is_contiguous() else dense.T).flatten()
            for piece in torch.split(flat, len(flat) if _whole_vectors(len(flat)) else MAX_SERIAL):
                functional.silu(piece, inplace=True)
            return x if dense is x else x.copy_(dense)
        for rows in torch.split(x, WIDE_ROWS):
            wide = rows.float()
            rows.copy_(wide / wide.neg().exp_().add_(1))
        return x


EXACT: Final = Numerics("exact", torch.float64, exact=True)
FAST: Final = Numerics("fast", torch.float32, exact=False)


def _whole_vectors(elements: int) -> bool:
    """Whether each thread of an operation over so many elements gets whole vectors only."""
    threads = min(torch.get_num_threads(), -(-elements // (512 * VECTOR)))
    return -(-elements // max(1, threads)) % VECTOR == 0


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (arXiv 1910.07467), the mean in float32."""
    y = torch.empty_like(x)
    for rows, into in zip(torch.split(x, NORM_ROWS), torch.split(y, NORM_ROWS), strict=True):
        torch.mul(weight, functional.rms_norm(rows, rows.shape[-1:], eps=eps), out=into)
    return y


def argmax(logits: Tensor) -> Tensor:
    """The token of the highest logit of each row of [R, V], the lowest index among equals: [R] int64."""
    return torch.argmax(logits, dim=-1)  # promises the first of several maxima
