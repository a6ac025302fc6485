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

#: the library's blocks have a multiple of so many rows; others would be filled up
_ROWS: Final = 64
_OPS: Final = ("_reorder_linear_weight", "_linear_pointwise")
#: what says whether the library has such kernels for a type on this processor
_SUPPORTED: Final = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A weight matrix [out, in], as `blocks` of its rows, `rows` in each but the last, that only the library reads."""

    blocks: tuple[Tensor, ...]
    rows: int
    shape: tuple[int, int]
    dtype: torch.dtype

    def split(self) -> Iterator[Packed]:
        """Block by block."""
        for i, block in enumerate(self.blocks):
            rows = min(self.rows, self.shape[0] - i * self.rows)
            yield Packed((block,), rows, (rows, self.shape[1]), self.dtype)


Weight = Tensor | Packed


def packable(weight: Tensor) -> bool:
    """Whether the library lays out such weights, in no more memory than they take as they are."""
    ask = _SUPPORTED.get(weight.dtype, "")
    if weight.device.type != "cpu" or weight.shape[0] % _ROWS:
        return False
    return all(hasattr(torch.ops.mkldnn, op) for op in (ask, *_OPS)) and getattr(torch.ops.mkldnn, ask)()


def pack(weight: Tensor, block_rows: int | None = None) -> Packed:
    """A packable weight [out, in] laid out, about so many of its rows at a time."""
    rows = weight.shape[0] if block_rows is None else max(_ROWS, block_rows // _ROWS * _ROWS)
    blocks = [torch.ops.mkldnn._reorder_linear_weight(some.contiguous()) for some in torch.split(weight, rows)]
    return Packed(tuple(blocks), rows, (weight.shape[0], weight.shape[1]), weight.dtype)


def packed_product(x: Tensor, weight: Packed) -> Tensor:
    """x [T, in] times the weight transposed: [T, out]."""
    x = x.contiguous()
    each = [torch.ops.mkldnn._linear_pointwise(x, block, None, "none", [], "") for block in weight.blocks]
    return each[0] if len(each) == 1 else torch.cat(each, dim=1)
