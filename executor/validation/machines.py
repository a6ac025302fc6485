"""The machine of a configuration: this one with less RAM and a slower disk, or one whose GPU is played by a CPU."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from specsim.hardware import Fact, Gpu, Link, Machine
from specsim.validation.configurations import Configuration

GB: Final = 1e9
#: what the host of an emulated GPU computes at: it is the same CPU, which is busy being the GPU
_SPENT: Final = 0.01


def compute_threads(way: str) -> int:
    """Threads that compute: all that there are cores for, but copies over an emulated link take a core of their own."""
    cores = len(os.sched_getaffinity(0))
    return cores if way == "disk" else max(1, cores - 1)


def machine_of(configuration: Configuration, measured: Machine, weight_bytes: float) -> Machine:
    """The machine that the configuration describes, as it was measured with `compute_threads`."""
    fast = configuration.memory * weight_bytes
    rate = configuration.gigabytes_per_s * GB
    if configuration.way == "disk":
        disk = replace(measured.disk, bytes_per_s=min(rate, measured.disk.rate()), efficiency=1.0)
        return replace(measured, disk=disk, ram_budget_bytes=fast)
    host = measured.host
    gpu = Gpu("emulated", f"{host.title} as a GPU", fast, host.processor, "emulated", host.name, host.power_watts)
    return Machine(
        name=f"{measured.name}-emulated",
        host=measured.scaled(cpu=_SPENT).host,
        disk=measured.disk,
        gpu=gpu,
        link=Link("emulated", "emulated link", rate, 1.0, 1.0, 0.0),
        vram_budget_bytes=fast,
        ram_budget_bytes=measured.ram_budget_bytes,
        facts=tuple(_of_gpu(fact) for fact in measured.facts if fact.field.startswith("host.")),
    )


def _of_gpu(fact: Fact) -> Fact:
    """A fact of the host as one of the GPU that it plays."""
    return replace(fact, field=fact.field.replace("host.dram", "gpu.vram").replace("host.", "gpu."))
