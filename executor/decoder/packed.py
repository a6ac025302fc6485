"""Weights laid out once as the library's kernels read them, which otherwise every product does anew.

For weights that stay where they are: laying them out takes as long as a product of many rows. A product of 1 to 24 rows
is then 1.3 to 1.9 times as fast, one of 64 or more about as fast (3584 x 1024 in bfloat16, two threads with AVX-512).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: what says whether the library has such kernels for a type on this processor
_SUPPORTED: Final = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A weight matrix [out, in], as `blocks` of its rows that only the library can read."""

    blocks: tuple[Tensor, ...]
    shape: tuple[int, int]
    dtype: torch.dtype

    def split(self) -> Iterator[Packed]:
        """One by one, all blocks but the last of the same height."""
        rows = -(-self.shape[0] // len(self.blocks))
        for i, block in enumerate(self.blocks):
            yield Packed((block,), (min(rows, self.shape[0] - i * rows), self.shape[1]), self.dtype)


Weight = Tensor | Packed


def packable(weight: Tensor) -> bool:
    """Whether the library lays out such weights."""
    ask = _SUPPORTED.get(weight.dtype)
    return ask is not None and weight.device.type == "cpu" and getattr(torch.ops.mkldnn, ask)()


def pack(weight: Tensor, blocks: int = 1) -> Packed:
    """A packable weight [out, in] laid out, in so many blocks of its rows."""
    rows = torch.split(weight, -(-weight.shape[0] // blocks))
    each = tuple(torch.ops.mkldnn._reorder_linear_weight(some.contiguous()) for some in rows)
    return Packed(each, (weight.shape[0], weight.shape[1]), weight.dtype)


def packed_product(x: Tensor, weight: Packed) -> Tensor:
    """x [T, in] times the weight transposed: [T, out]."""
    x = x.contiguous()
    each = [torch.ops.mkldnn._linear_pointwise(x, block, None, "none", [], "") for block in weight.blocks]
    return each[0] if len(each) == 1 else torch.cat(each, dim=1)
