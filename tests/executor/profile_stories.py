"""Sizes with which the probes take milliseconds, and samples of a processor that is known."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from executor.profile.disk import DiskSizes, Way
from executor.profile.measure import Effort
from executor.profile.pieces import Walk, model_of
from executor.profile.probes import READ, TASK, TASKS, Sizes
from executor.profile.sampling import Samples
from specsim.cost.timing import compute_seconds
from specsim.cost.work import Work
from specsim.hardware import Processor
from specsim.model import FeedForward

MODEL = model_of(32, 64, heads=4, kv_heads=2, head_dim=8, vocab=64, experts=4)
DENSE = replace(MODEL, ffn=FeedForward(64))
SHAPES = ((1, 1, 4), (3, 2, 4), (2, 1, 16), (1, 8, 0), (5, 1, 40))
HOST = Sizes(
    model=model_of(64, 128, heads=4, kv_heads=2, head_dim=16, vocab=128),
    kept_width=32,
    arena_bytes=2**21,
    rows=(1, 8, 64),
    some_rows=(1, 8),
    other_rows=(8, 64),
    walks=tuple(Walk(model, *shape) for model in (MODEL, DENSE) for shape in SHAPES),
    beside=Walk(MODEL, 1, 1, 4),
)
DISK = DiskSizes(file_bytes=2**18, unit_bytes=2**16, ways=(Way(1, 2**16), Way(2, 2**14)))
NO_TIME = Effort(processor_seconds=0.0, disk_seconds=0.0, overlap_seconds=0.0, runs=0)

DTYPE = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}


def samples_of(processor: Processor, sizes: Sizes) -> dict[Hashable, Samples]:
    """What the probes of `sizes` would take on `processor`: three equal samples each."""
    times: dict[Hashable, float] = {}
    for product in sizes.products():
        weights = 0 if product.kept else product.weight_bytes
        dtype, op = DTYPE[product.dtype], product.op
        work = Work("gemm", product.flops, weights, product.rows, calls=0, dtype=dtype, op=op, packed=product.packed)
        times[product] = compute_seconds(processor, work)
    for walk in sizes.walks:
        times |= {piece: compute_seconds(processor, piece.work()) for piece in walk.pieces()}
    times[READ] = sizes.arena_bytes / processor.bytes_per_s
    times[TASK] = processor.task_s * TASKS
    return {key: (seconds,) * 3 for key, seconds in times.items()}
