"""The machine of a configuration: this one with less RAM and a slower disk, or one whose GPU is played by a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from executor.validation.link import emulated_link
from specsim import machines
from specsim.errors import InputError
from specsim.hardware import EMULATED, Fact, Gpu, Machine
from specsim.validation.configurations import Setting

GB: Final = 1e9
#: what the host of an emulated GPU computes at: it is the same CPU, which is busy being the GPU
_SPENT: Final = 0.01


def compute_threads(way: str) -> int:
    """Threads that compute: all that there are cores for, but copies over an emulated link take a core of their own."""
    cores = len(os.sched_getaffinity(0))
    return cores if way == "disk" else max(1, cores - 1)


def measured_machine(way: str, models: Path, path: Path) -> Machine:
    """This machine, as it is measured with the threads that settings of this `way` compute with, reading `models`.

    It is measured once, in a process of its own, and kept in the file `path`. Raises InputError where that fails.
    """
    if not path.exists():
        done = subprocess.run(
            [sys.executable, "-m", "specsim", "profile", "--disk-path", str(models), "-o", str(path)],
            env=os.environ | {"OMP_NUM_THREADS": str(compute_threads(way))},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InputError(f"this machine cannot be measured: {done.stderr.strip()}", where=str(path))
    return machines.assemble(machine=str(path))


def machine_of(setting: Setting, measured: Machine, weight_bytes: float) -> Machine:
    """The machine that a setting describes, made of the one that was measured with `compute_threads`."""
    fast = setting.memory * weight_bytes
    rate = setting.gigabytes_per_s * GB
    if setting.way == "disk":
        disk = replace(measured.disk, bytes_per_s=min(rate, measured.disk.rate()), efficiency=1.0)
        return replace(measured, disk=disk, ram_budget_bytes=fast)
    host = measured.host
    gpu = Gpu(EMULATED, f"{host.title} as a GPU", fast, host.processor, EMULATED, host.name, host.power_watts)
    return Machine(
        name=f"{measured.name}-emulated",
        host=measured.scaled(cpu=_SPENT).host,
        disk=measured.disk,
        gpu=gpu,
        link=emulated_link(rate),
        vram_budget_bytes=fast,
        ram_budget_bytes=measured.ram_budget_bytes,
        facts=tuple(_of_gpu(fact) for fact in measured.facts if fact.field.startswith("host.")),
    )


def _of_gpu(fact: Fact) -> Fact:
    """A fact of the host as one of the GPU that it plays."""
    return replace(fact, field=fact.field.replace("host.dram", "gpu.vram").replace("host.", "gpu."))
