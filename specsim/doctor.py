"""What this machine has, what works on it, and how to get what does not: for planning, running, a GPU, notebooks."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from specsim import __version__
from specsim.here import groups
from specsim.here.gpus import Gpus, read_gpus
from specsim.here.limits import Limits, read_limits
from specsim.here.software import Torch, ask_torch, versions
from specsim.here.storage import Storage, read_storage
from specsim.here.system import System, instruction_sets, read_system
from specsim.units import show

#: what pyproject.toml asks for beside the command line's own library, and its extras
PLANNING: Final = ("numpy", "scipy", "pandas", "msgspec", "pyyaml", "joblib")
PICTURES: Final = ("matplotlib",)
RUNNING: Final = ("torch", "transformers", "safetensors", "tokenizers")
SERVING: Final = ("starlette", "uvicorn", "prometheus-client")
NOTEBOOKS: Final = ("nbclient", "nbformat", "ipykernel")
CLUSTER: Final = ("dask", "distributed")
PARQUET: Final = ("pyarrow",)
#: kinds of storage that no weights should be streamed from
SLOW: Final = {"RAM": "in RAM", "network": "on the network", "hard disk": "on a hard disk"}
#: a run keeps the checkpoint's shards open, and the largest have some two hundred
OPEN_FILES: Final = 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Here:
    """Everything that was found. `software` is Python and the system; `limit` the tightest control group on memory,
    with its folder; `storage` is None where the directory is gone; `packages` are versions, None where one is missing;
    `solver` is a complaint or ""."""

    software: str
    system: System
    instructions: tuple[str, ...]
    limit: tuple[int, Path] | None
    gpus: Gpus
    storage: Storage | None
    limits: Limits
    packages: Mapping[str, str | None]
    torch: Torch | None
    solver: str


@dataclass(frozen=True, slots=True)
class Purpose:
    """Whether something works, with what, or what is missing for it and how to get that."""

    name: str
    works: bool
    found: str
    remedy: str = ""


def look(directory: Path = Path(), say: Say = lambda _: None) -> Here:
    """Look at this machine, and at the disk that holds `directory`. Takes as long as torch takes to load."""
    packages = versions((*PLANNING, *PICTURES, *RUNNING, *SERVING, *NOTEBOOKS, *CLUSTER, *PARQUET))
    say("GPUs")
    gpus = read_gpus()
    say("solver")
    solver = _solver() if packages["scipy"] is not None else ""
    say("torch")
    torch = ask_torch() if packages["torch"] is not None else None
    software = f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    storage, limits = read_storage(directory), read_limits()
    system, limit = read_system(), groups.tightest()
    return Here(software, system, instruction_sets(), limit, gpus, storage, limits, packages, torch, solver)


def facts(here: Here) -> dict[str, str]:
    """What there is, by what it is, for a person."""
    system, limits, storage = here.system, here.limits, here.storage
    group = f"; a control group allows {show(here.limit[0], 'bytes')}" if here.limit is not None else ""
    locked = "any" if limits.locked_bytes is None else show(limits.locked_bytes, "bytes")
    reserved = show(limits.reserved_bytes, "bytes") if limits.reserved_bytes else "none"
    pages = f"transparent {limits.transparent or 'unknown'}, {reserved} reserved"
    rows = {
        "specsim": f"{__version__}, {here.software}",
        "processor": f"{system.cpu}, {system.sockets} socket{'s' if system.sockets > 1 else ''}",
        "cores": f"{system.cores} for this process",
        "instructions": ", ".join(here.instructions) or "unknown",
        "RAM": f"{show(system.ram_bytes, 'bytes')}, {show(system.available_bytes, 'bytes')} of it free{group}",
        "disk, here": "unknown, as this directory is gone" if storage is None else _disk(storage),
        "limits": f"{'any number of' if limits.open_files is None else limits.open_files} open files, {locked} locked",
        "huge pages": pages,
    }
    if here.torch is not None and not here.torch.complaint:
        built = f"built for {here.torch.built_for or 'no GPU'}, on the CPU {here.torch.instructions}"
        rows["torch"] = f"{here.packages['torch']}, {built}"
    for n, card in enumerate(here.gpus.cards):
        room = f"{show(card.vram_bytes, 'bytes')}, {show(card.free_bytes, 'bytes')} of it free"
        told = ", ".join(filter(None, (card.name, room, card.link, card.driver)))
        rows["GPU" if len(here.gpus.cards) == 1 else f"GPU {n}"] = told
    if not here.gpus.cards:
        rows["GPU"] = here.gpus.complaint or "none that a driver knows"
    return rows


def _disk(storage: Storage) -> str:
    kind = ", ".join(filter(None, (storage.kind, storage.file_system)))
    return f"{show(storage.free_bytes, 'bytes')} free of {show(storage.capacity_bytes, 'bytes')} ({kind})"


def purposes(here: Here) -> list[Purpose]:
    """What a person may want to do here, in the order in which it is wanted."""
    planning = _packages(here, "planning", PLANNING, "pip install --upgrade specsim-offload")
    if planning.works:
        remedy = "pip install --force-reinstall scipy"
        told = f"{planning.found}; {here.solver or 'its solver works'}"
        planning = Purpose("planning", not here.solver, told, remedy if here.solver else "")
    return [
        planning,
        _packages(here, "pictures and reports", PICTURES, "pip install --upgrade specsim-offload"),
        _running(here),
        _on_a_gpu(here),
        _packages(here, "serving", SERVING, "pip install 'specsim-offload[serve]'"),
        _packages(here, "notebooks", NOTEBOOKS, "pip install 'specsim-offload[notebooks]'"),
        _packages(here, "sweeps on a cluster", CLUSTER, "pip install 'specsim-offload[cluster]'"),
        _packages(here, "sweeps as Parquet", PARQUET, "pip install 'specsim-offload[parquet]'"),
    ]


def advice(here: Here) -> list[str]:
    """What works, and would work better otherwise."""
    lines = []
    if here.storage is not None and here.storage.kind in SLOW:
        lines.append(f"this directory lies {SLOW[here.storage.kind]}: weights that stream from disk belong on an SSD")
    if here.limits.open_files is not None and here.limits.open_files < OPEN_FILES:
        lines.append(f"{here.limits.open_files} open files are few for a large checkpoint: ulimit -n {OPEN_FILES}")
    return lines


def _packages(here: Here, name: str, wanted: Sequence[str], remedy: str) -> Purpose:
    missing = [package for package in wanted if here.packages[package] is None]
    if missing:
        return Purpose(name, False, f"not installed: {', '.join(missing)}", remedy)
    return Purpose(name, True, ", ".join(f"{package} {here.packages[package]}" for package in wanted))


def _running(here: Here) -> Purpose:
    purpose = _packages(here, "running plans", RUNNING, "pip install 'specsim-offload[run]'")
    if purpose.works and here.torch is not None and here.torch.complaint:
        why = f"torch {here.packages['torch']} does not load: {here.torch.complaint}"
        return Purpose(purpose.name, False, why, "pip install --force-reinstall torch")
    return purpose


def _on_a_gpu(here: Here) -> Purpose:
    name, torch, cards = "running on a GPU", here.torch, here.gpus.cards
    if torch is not None and torch.cards:
        return Purpose(name, True, f"torch for {torch.built_for} sees {', '.join(torch.cards)}")
    if here.gpus.complaint:
        return Purpose(name, False, here.gpus.complaint, "reinstall the GPU's driver, and restart")
    if not cards:
        remedy = "plan with --gpu NAME for another machine; specsim run --emulate-gpu plays one here"
        return Purpose(name, False, "no driver knows of an NVIDIA or AMD GPU", remedy)
    if torch is None or torch.complaint:
        return Purpose(name, False, "needs torch, see above", "pip install 'specsim-offload[run]'")
    if not torch.built_for:
        remedy = "choose a build for it at https://pytorch.org/get-started/locally"
        return Purpose(name, False, f"torch {here.packages['torch']} is built for no GPU", remedy)
    why = f"torch for {torch.built_for} sees none of the GPUs that {cards[0].driver} knows"
    return Purpose(name, False, why, "update the driver, or unset CUDA_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES")


def _solver() -> str:
    """Solve a program whose answer is known: what is wrong, or ""."""
    try:
        program = import_module("specsim.planner.solver").Program()  # what does not load is a finding too
        apples, pears = program.integer(5), program.integer(5)
        program.at_most([(2.0, apples), (1.0, pears)], 7.0)
        program.minimise([(-3.0, apples), (-2.0, pears)])
        least = program.solve() or 0.0
    except Exception as error:  # whatever a solver that cannot be started raises
        return f"the solver fails: {' '.join(str(error).split())}"
    return "" if math.isclose(least, -13.0) else f"the solver finds {least:g} where the least is -13"
