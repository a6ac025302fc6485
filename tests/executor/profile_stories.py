"""Sizes with which the probes take milliseconds, and samples of a processor that is known."""

from __future__ import annotations

from collections.abc import Hashable

from executor.profile.decode import DecodeShape, dense_model
from executor.profile.disk import DiskSizes, Way
from executor.profile.measure import Effort
from executor.profile.probes import ATTENTION, READ, STEP, Sizes
from executor.profile.sampling import Samples
from specsim.cost.timing import compute_seconds
from specsim.cost.work import Work
from specsim.hardware import Processor

MODEL = dense_model(hidden=32, width=64, layers=2, heads=4, kv_heads=2, head_dim=8)
HOST = Sizes(
    hidden=64,
    width=128,
    kept_width=32,
    arena_bytes=2**21,
    rows=(1, 8, 64),
    other_rows=(8, 64),
    attention=DecodeShape(MODEL, sequences=2, new=2, context=16),
    step=DecodeShape(MODEL, sequences=2, new=1, context=4),
)
DISK = DiskSizes(file_bytes=2**18, unit_bytes=2**16, ways=(Way(1, 2**16), Way(2, 2**14)))
NO_TIME = Effort(processor_seconds=0.0, disk_seconds=0.0)

DTYPE = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}


def samples_of(processor: Processor, sizes: Sizes) -> dict[Hashable, Samples]:
    """What the probes of `sizes` would take on `processor`: three equal samples each. A product costs no overhead."""
    times: dict[Hashable, float] = {}
    for product in sizes.products():
        weights = 0 if product.kept else product.weight_bytes
        work = Work("gemm", product.flops, weights, product.rows, calls=0, dtype=DTYPE[product.dtype])
        times[product] = compute_seconds(processor, work)
    times[READ] = sizes.arena_bytes / processor.bytes_per_s
    times[ATTENTION] = compute_seconds(processor, sizes.attention.attention())
    times[STEP] = sum(compute_seconds(processor, work) for work in sizes.step.step())
    return {key: (seconds,) * 3 for key, seconds in times.items()}
