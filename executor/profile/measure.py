"""Measure this machine: ask the system, time the disk, the processor, and the GPU if there is one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from executor.process import GROWTH_BYTES, share_bytes
from executor.profile.analysis import Measured, processor_facts
from executor.profile.cuda import copy_probes, link_facts
from executor.profile.decode import DecodeShape, dense_model
from executor.profile.disk import DiskSizes, Way, disk_facts, disk_samples, disk_units
from executor.profile.machine import Device, Facts
from executor.profile.probes import Sizes, processor_probes
from executor.profile.sampling import Samples, collect
from executor.profile.system import busy_seconds, read_system
from specsim.units import GiB, MiB, show

Say = Callable[[str], None]

#: other programs that keep this much of a core busy are worth a warning
_FOREIGN_CORES: Final = 0.1

_TINY = dense_model(hidden=64, width=128, layers=3, heads=4, kv_heads=2, head_dim=16)
_STEP = DecodeShape(_TINY, sequences=4, new=1, context=16)
_ONE_LAYER = dense_model(1024, 3584, 1, heads=16, kv_heads=4, head_dim=128)
_LARGE_LAYER = dense_model(4096, 14336, 1, heads=32, kv_heads=8, head_dim=128)

#: products as wide as a small model's FFN on the host, as a large one's on a GPU
HOST_SIZES: Final = Sizes(
    hidden=1024,
    width=3584,
    kept_width=512,
    arena_bytes=int(512 * MiB),
    rows=(1, 4, 16, 32, 64, 128, 512, 2048),
    other_rows=(64, 256),
    attention=DecodeShape(_ONE_LAYER, sequences=8, new=4, context=512),
    step=_STEP,
)
GPU_SIZES: Final = Sizes(
    hidden=4096,
    width=14336,
    kept_width=2048,
    arena_bytes=int(2 * GiB),
    rows=(1, 16, 64, 256, 1024, 4096),
    other_rows=(1024, 4096),
    attention=DecodeShape(_LARGE_LAYER, sequences=32, new=4, context=512),
    step=_STEP,
)
#: the fewest threads first, and then the fewest calls; a unit is what a part of a model's FFN may be
DISK_SIZES: Final = DiskSizes(
    file_bytes=int(256 * MiB),
    unit_bytes=int(64 * MiB),
    ways=tuple(Way(n, int(size * MiB)) for n in (1, 2, 4) for size in (64, 16, 4) if n * size <= 64),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long the probes of a processor, and the reads of units, go on; what is around them is short."""

    processor_seconds: float
    disk_seconds: float


QUICK: Final = Effort(processor_seconds=7.0, disk_seconds=3.0)
LONG: Final = Effort(processor_seconds=30.0, disk_seconds=8.0)


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
    host = host.within(system.available_bytes)
    noise: dict[str, str] = {}
    with disk_units(disk_path, disk) as units, _watched("disk", noise):
        say("disk")
        reads = disk_samples(units, disk, seconds=effort.disk_seconds)
    with _watched("host", noise):
        samples = _collect(host, torch.device("cpu"), effort, lambda what: say(f"processor, {what}"))
    return Facts(
        system=system,
        threads=torch.get_num_threads(),
        host=processor_facts(samples, host, "dram_bandwidth") | _process(),
        disk=disk_facts(reads),
        disk_bytes=shutil.disk_usage(disk_path).total,
        disk_path=str(disk_path.resolve()),
        device=_device(gpu, effort, say) if torch.cuda.is_available() else None,
        noise=noise,
    )


def _process() -> dict[str, Measured]:
    """What a run takes of the RAM beside its stores, where the system says."""
    share = share_bytes()
    how = f"a fresh process, ready to run a plan, and {show(GROWTH_BYTES, 'bytes')} for what grows with the run"
    return {} if share is None else {"process": Measured(float(share), 1, 0.0, how)}


def _collect(sizes: Sizes, device: torch.device, effort: Effort, say: Say) -> dict[Hashable, Samples]:
    return collect(processor_probes(sizes, device), seconds=effort.processor_seconds, say=say)


def _device(sizes: Sizes, effort: Effort, say: Say) -> Device:
    """The GPU that torch takes by default, and the link to it."""
    card = torch.device("cuda", torch.cuda.current_device())
    sizes = sizes.within(torch.cuda.mem_get_info(card)[0])
    samples = _collect(sizes, card, effort, lambda what: say(f"GPU, {what}"))
    copies = collect(copy_probes(card), seconds=effort.disk_seconds, say=lambda what: say(f"link, {what}"))
    found = torch.cuda.get_device_properties(card)
    facts = processor_facts(samples, sizes, "vram_bandwidth")
    return Device(found.name, found.total_memory, facts, link_facts(copies))


@contextmanager
def _watched(part: str, noise: dict[str, str]) -> Iterator[None]:
    """Note under `part` if other programs were busy on this process's cores meanwhile. Samples alone do not show it: a
    steady load slows all of them alike."""
    before, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    yield
    after, elapsed = busy_seconds(), time.perf_counter() - start
    if before is not None and after is not None:
        foreign = (after - before - (time.process_time() - own)) / elapsed
        if foreign > _FOREIGN_CORES:
            noise[part] = f"noisy: other programs kept {foreign:.1f} cores busy"
