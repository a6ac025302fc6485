"""What is timed on a processor: products, a streaming read, decode attention and a tiny step. Host and GPU alike.

The same few shapes that a decoder has. Weights and caches lie in so much memory that each use finds the next of them
outside the caches, as a pass over a model's layers does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from executor.profile.decode import DecodeShape, attention_run, step_run
from executor.profile.sampling import Probe

DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
#: random bf16 numbers of this size, repeated, fill the memory that products and reads walk through
TILE_BYTES: Final = 2**21

READ, ATTENTION, STEP = "read", "attention", "step"


@dataclass(frozen=True, slots=True)
class Product:
    """[rows, hidden] times the transpose of [width, hidden]. `kept`: always the same matrix, which stays in a cache."""

    dtype: str
    rows: int
    hidden: int
    width: int
    kept: bool = False

    @property
    def flops(self) -> float:
        return 2.0 * self.rows * self.hidden * self.width

    @property
    def weight_bytes(self) -> int:
        return self.hidden * self.width * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class Sizes:
    """`arena_bytes`, a multiple of TILE_BYTES, is the memory that weights are taken from; `kept_width` is the width of
    a matrix that fits the caches."""

    hidden: int
    width: int
    kept_width: int
    arena_bytes: int
    rows: tuple[int, ...]  # of products in bf16, for the curve
    other_rows: tuple[int, ...]  # of those in other dtypes, for their peaks
    attention: DecodeShape
    step: DecodeShape  # of a model so tiny that only its overheads count

    def within(self, free_bytes: int) -> Sizes:
        """The same with an arena of at most a quarter of the free memory, but room for one matrix of any dtype."""
        most = max(free_bytes // 4, 4 * self.hidden * self.width)
        return replace(self, arena_bytes=min(self.arena_bytes, -(-most // TILE_BYTES) * TILE_BYTES))

    def products(self) -> tuple[Product, ...]:
        """bf16 streamed and kept for every point of the curve; other dtypes where compute bounds them."""
        streamed = [Product("bf16", rows, self.hidden, self.width) for rows in self.rows]
        kept = [Product("bf16", rows, self.hidden, self.kept_width, kept=True) for rows in self.rows]
        others = [
            Product(dtype, rows, self.hidden, self.width) for dtype in ("fp32", "fp16") for rows in self.other_rows
        ]
        return (*streamed, *kept, *others)


def processor_probes(sizes: Sizes, device: torch.device) -> dict[Hashable, Probe]:
    """Every probe of a processor by its key: a Product, READ, ATTENTION or STEP."""
    arena = _arena(sizes.arena_bytes, device)
    finish = _finish(device)
    probes: dict[Hashable, Probe] = {p: Probe(_product_run(p, arena), finish=finish) for p in sizes.products()}
    words = arena.view(torch.float32)
    probes[READ] = Probe(lambda: words.sum(), finish=finish)
    probes[ATTENTION] = Probe(attention_run(sizes.attention, device), finish=finish)
    probes[STEP] = Probe(step_run(sizes.step, device), repeats=3, finish=finish)
    return probes


def _arena(nbytes: int, device: torch.device) -> Tensor:
    """bf16 [nbytes / 2], every word of it an ordinary number in the other dtypes too."""
    tile = torch.randn(TILE_BYTES // 2, device=device).to(torch.bfloat16)
    return tile.repeat(nbytes // TILE_BYTES)


def _matrices(product: Product, arena: Tensor) -> Iterator[Tensor]:
    words = arena.view(DTYPES[product.dtype])
    size = product.hidden * product.width
    count = 1 if product.kept else max(1, words.numel() // size)
    return cycle([words[i * size : (i + 1) * size].view(product.width, product.hidden) for i in range(count)])


def _product_run(product: Product, arena: Tensor) -> Callable[[], Tensor]:
    matrices = _matrices(product, arena)
    rows = torch.randn(product.rows, product.hidden, device=arena.device).to(DTYPES[product.dtype])
    return lambda: functional.linear(rows, next(matrices))


def _finish(device: torch.device) -> Callable[[], None]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None
