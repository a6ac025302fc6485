"""Measure this machine: ask the system, time the disk, the processor, and the GPU if there is one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import torch

from executor.process import GROWTH_BYTES, keep_heap_small, share_bytes
from executor.profile.analysis import Measured, processor_facts
from executor.profile.cuda import copy_probes, link_facts
from executor.profile.disk import DiskSamples, DiskSizes, Units, Way, disk_facts, disk_samples, disk_units, reading
from executor.profile.inrun import in_run_facts
from executor.profile.machine import Device, Facts, to_profile
from executor.profile.noise import throttled, watched
from executor.profile.overlap import Overlap, overlap_facts, overlap_samples
from executor.profile.pieces import Walk, Walker, model_of
from executor.profile.probes import Sizes, arena, processor_probes
from executor.profile.sampling import Samples, collect
from specsim.errors import SpecsimError
from specsim.here.system import read_system
from specsim.model import FeedForward, Model
from specsim.units import GiB, MiB, show

Say = Callable[[str], None]

#: memory that the weights beside the disk's reads are taken from
_BESIDE_BYTES: Final = int(256 * MiB)

_SMALL = model_of(256, 256, heads=8, kv_heads=2, head_dim=32, experts=8)
_MEDIUM = model_of(1024, 3584, heads=16, kv_heads=4, head_dim=64, vocab=32000, experts=8)
_MANY = model_of(1024, 768, heads=16, kv_heads=4, head_dim=64, experts=24)
_LARGE = model_of(4096, 14336, heads=32, kv_heads=8, head_dim=128, vocab=32000, experts=2)


def _walks(models: tuple[Model, ...], *shapes: tuple[int, int, int]) -> tuple[Walk, ...]:
    """Sequences, new positions and cached ones; the models as they are, and with one expert for all."""
    dense = [replace(model, ffn=FeedForward(model.ffn.width)) for model in models]
    return tuple(Walk(model, *shape) for model in (*models, *dense) for shape in shapes)


#: products as wide as a small model's FFN on the host, as a large one's on a GPU
HOST_SIZES: Final = Sizes(
    model=_MEDIUM,
    kept_width=512,
    arena_bytes=int(512 * MiB),
    rows=(1, 2, 4, 8, 16, 32, 48, 64, 128, 256, 512),
    some_rows=(1, 2, 4, 8, 16, 48, 96, 256, 512),
    other_rows=(1, 32, 256),
    walks=_walks(
        (_SMALL, _MEDIUM),
        *((1, 1, 96), (4, 4, 72), (16, 1, 96), (16, 6, 72), (64, 1, 72), (64, 4, 96), (16, 3, 384), (16, 64, 0)),
    )
    + tuple(Walk(_MANY, *shape) for shape in ((4, 4, 72), (16, 4, 72), (64, 2, 72), (16, 64, 0))),
    beside=Walk(_MEDIUM, 16, 6, 96),
)
GPU_SIZES: Final = Sizes(
    model=_LARGE,
    kept_width=2048,
    arena_bytes=int(2 * GiB),
    rows=(1, 16, 64, 256, 1024, 4096),
    some_rows=(1, 16, 64, 256, 1024),
    other_rows=(16, 1024, 4096),
    walks=_walks(
        (_MEDIUM, _LARGE), *((1, 1, 512), (16, 1, 512), (16, 6, 512), (64, 4, 128), (16, 4, 2048), (8, 512, 0))
    ),
    beside=Walk(_MEDIUM, 16, 6, 96),
)
#: the fewest threads first, and then the fewest calls; a unit is what a part of a model's FFN may be
DISK_SIZES: Final = DiskSizes(
    file_bytes=int(256 * MiB),
    unit_bytes=int(64 * MiB),
    ways=tuple(Way(n, int(size * MiB)) for n in (1, 2, 4) for size in (64, 16, 4) if n * size <= 64),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds that the probes of a processor, the reads of units, and both at once go on at least, and how often a
    small pair is run; what is around them is short."""

    processor_seconds: float
    disk_seconds: float
    overlap_seconds: float
    runs: int


QUICK: Final = Effort(processor_seconds=7.0, disk_seconds=2.0, overlap_seconds=2.0, runs=3)
LONG: Final = Effort(processor_seconds=60.0, disk_seconds=15.0, overlap_seconds=10.0, runs=8)


def measure(
    disk_path: Path,
    *,
    effort: Effort = QUICK,
    host: Sizes = HOST_SIZES,
    gpu: Sizes = GPU_SIZES,
    disk: DiskSizes = DISK_SIZES,
    say: Say = lambda what: None,
) -> Facts:
    """What this machine reaches. The checkpoint in `disk_path` is read, or a scratch file that visits it meanwhile.

    Raises InputError where that directory cannot hold one.
    """
    system = read_system()  # before the probes take memory
    keep_heap_small()  # as runs do
    host = host.within(system.available_bytes)
    noise: dict[str, str] = {}
    with watched("host", noise):
        samples = _collect(host, torch.device("cpu"), effort, lambda what: say(f"processor, {what}"))
    throttled("host", noise, samples)
    with disk_units(disk_path, disk) as units, watched("disk", noise):
        say("disk")
        reads = disk_samples(units, disk, seconds=effort.disk_seconds)
        say("disk and processor")
        both = _overlap(units, reads, host.beside, effort)
    found = Facts(
        system=system,
        threads=torch.get_num_threads(),
        host=processor_facts(samples, host, "dram_bandwidth") | _process(),
        disk=disk_facts(reads) | overlap_facts(both),
        disk_bytes=shutil.disk_usage(disk_path).total,
        disk_path=str(disk_path.resolve()),
        device=_device(gpu, effort, noise, say) if torch.cuda.is_available() else None,
        noise=noise,
    )
    if not effort.runs:
        return found
    try:
        runs = in_run_facts(to_profile(found, date.today()), runs=effort.runs, say=say)
    except SpecsimError as error:  # all that was measured before is worth having
        noise["small pair"] = str(error)
        return found
    return replace(found, host={**found.host, **runs})


def _process() -> dict[str, Measured]:
    """What a run takes of the RAM beside its stores, where the system says."""
    share = share_bytes()
    how = f"a fresh process, ready to run a plan, and {show(GROWTH_BYTES, 'bytes')} for what grows with the run"
    return {} if share is None else {"process": Measured(float(share), 1, 0.0, how)}


def _collect(sizes: Sizes, device: torch.device, effort: Effort, say: Say) -> dict[Hashable, Samples]:
    return collect(processor_probes(sizes, device), seconds=effort.processor_seconds, say=say)


def _overlap(units: Units, reads: DiskSamples, beside: Walk, effort: Effort) -> Overlap:
    """The disk, read as runs will, beside a walk."""
    compute = Walker(beside, arena(_BESIDE_BYTES, torch.device("cpu"))).run
    with reading(units, reads) as read:
        return overlap_samples(compute, read, reads.unit_bytes, seconds=effort.overlap_seconds)


def _device(sizes: Sizes, effort: Effort, noise: dict[str, str], say: Say) -> Device:
    """The GPU that torch takes by default, and the link to it."""
    card = torch.device("cuda", torch.cuda.current_device())
    sizes = sizes.within(torch.cuda.mem_get_info(card)[0])
    samples = _collect(sizes, card, effort, lambda what: say(f"GPU, {what}"))
    throttled("gpu", noise, samples)
    copies = collect(copy_probes(card), seconds=effort.disk_seconds, say=lambda what: say(f"link, {what}"))
    found = torch.cuda.get_device_properties(card)
    facts = processor_facts(samples, sizes, "vram_bandwidth")
    return Device(found.name, found.total_memory, facts, link_facts(copies))
