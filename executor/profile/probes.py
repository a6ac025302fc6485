"""What is timed on a processor: products, a streaming read, and walks through layers. Host and GPU alike.

All computed in EXACT, as runs do unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Final

import torch
from torch import Tensor

from executor.decoder.numerics import EXACT
from executor.decoder.products import pack_agreeing
from executor.engine import Engine
from executor.profile.pieces import Walk, Walker, Weights
from executor.profile.sampling import Probe
from specsim.hardware import Op
from specsim.model import Model
from specsim.schedule.graph import Builder

DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
#: random bf16 numbers of this size, repeated, fill the memory that products and reads walk through
TILE_BYTES: Final = 2**21

#: so large are the numbers of an arena that a row of a model's width stays about as long in a product
_SCALE: Final = 32.0

#: sets of weights that a product takes turns with, at most: by then the first has left the caches
_SETS: Final = 16

READ, TASK = "read", "task"
#: loads and computations of a graph that only the engine's own time goes into
TASKS: Final = 100


@dataclass(frozen=True, slots=True)
class Product:
    """The products of an operation, one after the other: rows by matrices of `shapes`, outputs and inputs of each. One
    whose inputs are not the first one's has the first one's outputs. `packed`: laid out for the library, as weights are
    that stay; `kept`: always with the same matrices, which stay in a cache."""

    op: Op
    dtype: str
    rows: int
    shapes: tuple[tuple[int, int], ...]
    packed: bool = False
    kept: bool = False

    @property
    def weights(self) -> int:
        return sum(outputs * inputs for outputs, inputs in self.shapes)

    @property
    def flops(self) -> float:
        return 2.0 * self.rows * self.weights

    @property
    def weight_bytes(self) -> int:
        return self.weights * DTYPES[self.dtype].itemsize

    def run(self, arena: Tensor) -> Callable[[], object]:
        words = arena.view(DTYPES[self.dtype])
        shelf, hidden = Weights(words), self.shapes[0][1]
        rows = torch.randn(self.rows, hidden, device=arena.device).to(words.dtype)
        count = 1 if self.kept else max(1, words.numel() // self.weights)
        laid = pack_agreeing if self.packed else lambda weight: weight
        sets = cycle([[laid(shelf.matrix(*shape)) for shape in self.shapes] for _ in range(min(count, _SETS))])

        def run() -> None:
            first, *others = next(sets)
            with torch.inference_mode():
                inner = EXACT.linear(rows, first)
                for matrix in others:
                    EXACT.linear(rows if matrix.shape[1] == hidden else inner, matrix)

        return run


@dataclass(frozen=True, slots=True)
class Sizes:
    """`arena_bytes`, a multiple of TILE_BYTES, is the memory that weights are taken from; `kept_width` is the width of
    FFNs that fit the caches."""

    model: Model  # whose products are timed
    kept_width: int
    arena_bytes: int
    rows: tuple[int, ...]  # of an FFN's products in bf16
    some_rows: tuple[int, ...]  # of those of other operations
    other_rows: tuple[int, ...]  # of those in other dtypes
    walks: tuple[Walk, ...]
    beside: Walk  # that goes on while the disk is read

    def within(self, free_bytes: int) -> Sizes:
        """The same with an arena of at most a quarter of the free memory, but room for any one matrix."""
        tables = [2 * walk.model.embedding_parameters for walk in self.walks]
        largest = max(outputs * inputs for product in self.products() for outputs, inputs in product.shapes)
        most = max(free_bytes // 4, 4 * largest, *tables)
        return replace(self, arena_bytes=min(self.arena_bytes, -(-most // TILE_BYTES) * TILE_BYTES))

    def products(self) -> tuple[Product, ...]:
        """Of an FFN in bf16 streamed and kept, for every point of its curve, streamed in other dtypes, and packed; of
        other operations in bf16, streamed."""
        h, q, kv = self.model.hidden, self.model.heads * self.model.head_dim, self.model.kv_heads * self.model.head_dim
        ffn, kept = (((width, h), (width, h), (h, width)) for width in (self.model.ffn.width, self.kept_width))
        streamed = [Product("dense", "bf16", rows, ffn) for rows in self.rows]
        cached = [Product("dense", "bf16", rows, kept, kept=True) for rows in self.rows]
        others = [Product("dense", dtype, rows, ffn) for dtype in ("fp32", "fp16") for rows in self.other_rows]
        around = [Product("projections", "bf16", rows, ((q, h), (kv, h), (kv, h), (h, q))) for rows in self.some_rows]
        packed = [Product("dense", "bf16", rows, ffn, packed=True) for rows in self.some_rows]
        head = [Product("head", "bf16", rows, ((self.model.vocab, h),)) for rows in self.some_rows]
        return (*streamed, *cached, *others, *packed, *around, *head)


def processor_probes(sizes: Sizes, device: torch.device) -> dict[Hashable, Probe]:
    """Every probe of a processor by key: a Product, READ, TASK, or a Walk, which gives the samples of its pieces."""
    words, finish = arena(sizes.arena_bytes, device), _finish(device)
    probes: dict[Hashable, Probe] = {p: Probe(p.run(words), finish) for p in sizes.products()}
    probes |= {walk: Probe(Walker(walk, words, finish).run, finish, parts=True) for walk in sizes.walks}
    probes[READ] = Probe(words.view(torch.float32).sum, finish)
    probes[TASK] = Probe(run_tasks)
    return probes


def run_tasks() -> None:
    """What the engine does between tasks: computations in a row, each after a load that ran ahead."""
    b = Builder(ring_slots=0)
    after: tuple[int, ...] = ()
    for number in range(TASKS):
        load = b.add(f"verify.{number}/A/L00/load_ffn.0", "disk", "read", ())
        after = (b.add(f"verify.{number}/A/L00/ffn.0", "cpu", "ffn", (), (load, *after)),)
    with Engine() as engine:
        engine.submit(b.tasks, [_nothing] * len(b.tasks))
        engine.drain()


def _nothing() -> int:
    return 0


def arena(nbytes: int, device: torch.device) -> Tensor:
    """bf16 [nbytes / 2], every word of it an ordinary number in the other dtypes too."""
    tile = (torch.randn(TILE_BYTES // 2, device=device) / _SCALE).to(torch.bfloat16)
    return tile.repeat(nbytes // TILE_BYTES)


def _finish(device: torch.device) -> Callable[[], None]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None
