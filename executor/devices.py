"""The torch device of each processor of a plan, and what each stream's tasks run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from executor.lanes import CudaClock, CudaLane, HostLane, Lane
from specsim.cost.timing import resource
from specsim.errors import InputError
from specsim.hardware import Machine

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Devices:
    """`main` is the processor that runs layers by default. An emulated GPU computes on the CPU; what its plan keeps in
    VRAM is kept in RAM, apart, and reaches it over an emulated link."""

    main: str
    gpu: torch.device = CPU

    @property
    def cuda(self) -> bool:
        return self.gpu.type == "cuda"

    def of(self, processor: str) -> torch.device:
        return self.gpu if processor == "gpu" else CPU


def devices_for(machine: Machine, *, emulate_gpu: bool, number: int = 0) -> Devices:
    """With the GPU of that number. Raises InputError where the plan needs a GPU and there is none, or not so many."""
    if machine.gpu is None:
        if emulate_gpu:
            raise InputError("the plan's machine has no GPU to emulate", where="--emulate-gpu", hint="leave it out")
        return Devices("cpu")
    if emulate_gpu:
        return Devices("gpu")
    if not torch.cuda.is_available():
        hint = "run it there, plan for this machine, or try --emulate-gpu"
        raise InputError(f"the plan is for a machine with {machine.gpu.title}, torch finds no GPU here", hint=hint)
    if number >= torch.cuda.device_count():
        what = f"torch finds {torch.cuda.device_count()} GPUs here, and {number + 1} are needed"
        raise InputError(what, hint="start fewer ranks on this machine, and plan for so many stages")
    return Devices("gpu", torch.device("cuda", number))


def lanes_for(devices: Devices) -> Callable[[str], Lane]:
    """What the engine asks for each stream: streams of the GPU and of its link are CUDA streams."""
    if not devices.cuda:
        return HostLane
    clock = CudaClock(devices.gpu)
    return lambda stream: HostLane(stream) if stream.startswith(("cpu", "disk")) else CudaLane(clock)


def worker_for(devices: Devices) -> Callable[[str], str]:
    """And the thread of each: without CUDA, streams that compute for one processor share it. With it all have their
    own: a host thread may have to wait for the GPU, and others of the CPU need not."""
    if devices.cuda:
        return str
    return lambda stream: resource(stream) if resource(stream) in ("cpu", "gpu") else stream
