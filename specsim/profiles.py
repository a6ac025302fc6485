"""Find profiles by name, read and check them, and make typed values of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from specsim.acceptance import Acceptance, Pair
from specsim.check import Profile, check
from specsim.errors import InputError, UnknownNameError
from specsim.hardware import CURVES, OPS, TASK_KINDS, AttentionCost, Curve, Disk, Gpu, Host, Link, Processor
from specsim.model import read_config
from specsim.workload import Workload
from specsim.yamlfile import read_yaml

#: kind of profile -> its folder
KINDS: Final = {
    "gpu": "gpus",
    "host": "hosts",
    "link": "links",
    "disk": "disks",
    "machine": "machines",
    "model": "models",
    "workload": "workloads",
    "pair": "pairs",
}
#: of profiles that are files of their own
ENDINGS: Final = (".yaml", ".yml")
_HARDWARE: Final = ("gpu", "host", "link", "disk")


def root() -> Path:
    """The folder of shipped profiles: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    for folder in (package / "_profiles", package.parent / "profiles"):
        if folder.is_dir():
            return folder
    raise InputError("the profiles folder is missing", where=str(package), hint="install specsim again")


def names(kind: str) -> list[str]:
    """Names of all shipped profiles of a kind (a key of `KINDS`), sorted."""
    ending = ".json" if kind == "model" else ".yaml"
    return sorted(path.stem for path in (root() / KINDS[kind]).glob(f"*{ending}"))


def find(kind: str, name: str) -> Path:
    """The file of the shipped profile `name`, or the file that `name` is a path to.

    Paths end in .yaml or .yml; those of models in .json, or are a checkpoint's folder. Raises
    UnknownNameError with near matches, InputError for a path where there is no file.
    """
    if name in names(kind):
        return root() / KINDS[kind] / f"{name}{'.json' if kind == 'model' else '.yaml'}"
    path = Path(name)
    if kind == "model" and os.path.isdir(path):  # of pathlib's own, a name that is too long is an error
        return path
    if path.suffix in ((".json",) if kind == "model" else ENDINGS):
        if not os.path.isfile(path):
            raise InputError("no such file", where=name, hint=f"names need no ending: {path.stem}")
        return path
    raise UnknownNameError(kind, name, names(kind))


def read(path: str | Path, kind: str | None = None) -> Profile:
    """The checked profile in a YAML file. Raises InputError for the first thing wrong with it."""
    path = Path(path)
    return _read(path, kind, path.stat().st_mtime_ns if os.path.exists(path) else 0)


@lru_cache(maxsize=256)
def _read(path: Path, kind: str | None, _changed: int) -> Profile:
    """Each state of a file is read once, as a sweep asks for the same few hundreds of times."""
    profile, errors = _checked(path, kind)
    if profile is None:
        raise errors[0]
    return profile


def load(kind: str, name: str) -> Profile:
    """The checked profile called `name` (or at the path `name`). Raises InputError, UnknownNameError."""
    return read(find(kind, name), kind)


def problems(path: str | Path) -> list[str]:
    """Everything wrong with a profile file, one line each; empty for a good one. Reads models (.json) too."""
    path = Path(path)
    try:
        if path.suffix not in ENDINGS:
            read_config(path)
            return []
        profile, errors = _checked(path, None)
        if profile is None:
            return [str(error) for error in errors]
        missing = [str(error) for error in _dangling(profile)]
        typed(profile)
    except InputError as error:
        return [str(error)]
    return missing


def _checked(path: Path, kind: str | None) -> tuple[Profile | None, list[InputError]]:
    return checked(read_yaml(path), path, kind)


def checked(raw: Any, path: Path, kind: str | None = None) -> tuple[Profile | None, list[InputError]]:
    """The profile that the plain value of the file at `path` is, or None and all that is wrong with it."""
    profile, errors = check(raw, str(path), kind)
    name = raw.get("name") if isinstance(raw, dict) else None
    # a measured machine is the user's own file, called what the user likes; all others are found by name
    named = isinstance(raw, dict) and raw.get("schema") != "specsim.machine/1"
    if named and isinstance(name, str) and name != path.stem:
        errors.append(InputError(f"name is {name!r}", where=str(path), hint=f"name it as its file: {path.stem}"))
    return (None if errors or profile is None else _beside(profile, path.parent)), errors


def _beside(profile: Profile, folder: Path) -> Profile:
    """The profile with the files that it names found from its own folder, not from where the command runs."""
    parts = {
        key: str(folder / part) if isinstance(part, str) and part.endswith(ENDINGS) else part
        for key, part in profile.parts.items()
    }
    return replace(profile, parts=parts)


def _dangling(profile: Profile) -> list[InputError]:
    """Names of other profiles in this one that do not exist."""
    errors = []
    for key, part in profile.parts.items():
        if isinstance(part, Profile):
            errors += _dangling(part)
        elif key in _HARDWARE and part != "none" and part not in names(key):
            if str(part).endswith(ENDINGS):
                errors += _checked(Path(str(part)), key)[1]
            else:
                errors.append(UnknownNameError(key, part, names(key), where=profile.where))
    return errors


def _curve(profile: Profile, fact: str) -> Curve:
    value = profile.stated[fact].value
    assert isinstance(value, Curve), f"{fact} of {profile.name} is no curve"
    return value


def _processor(profile: Profile, bandwidth: str) -> Processor:
    stated = profile.stated
    return Processor(
        flops_per_s={dtype: profile.number(dtype) for dtype in ("fp32", "bf16", "fp16", "int8") if dtype in stated},
        bytes_per_s=profile.number(bandwidth),
        gemm_efficiency=_curve(profile, "gemm_efficiency"),
        attention_efficiency=profile.number_or("attention_efficiency", 1.0),
        bandwidth_efficiency=profile.number("bandwidth_efficiency"),
        overhead_s=profile.number_or("overhead", 0.0),
        gemm_efficiencies={of: _curve(profile, fact) for of in CURVES if (fact := f"gemm_efficiency_{of}") in stated},
        overheads_s={op: profile.number(fact) for op in OPS if (fact := f"overhead_{op}") in stated},
        activation_bytes_per_s={op: profile.number(fact) for op in OPS if (fact := f"activations_{op}") in stated},
        attention=_attention(profile) if "attention_sequence" in stated else None,
        task_s=profile.number_or("task_overhead", 0.0),
        in_run_s={kind: profile.number(fact) for kind in TASK_KINDS if (fact := f"in_run_{kind}") in stated},
        draft_efficiency=profile.number_or("draft_efficiency", 1.0),
    )


def _attention(profile: Profile) -> AttentionCost:
    """A rate at which nothing was seen to be waited for is left out."""
    return AttentionCost(
        sequence_s=profile.number("attention_sequence"),
        flops_per_s=profile.number_or("attention_flops", math.inf),
        kv_bytes_per_s=profile.number_or("attention_kv", math.inf),
    )


def to_gpu(p: Profile) -> Gpu:
    processor = _processor(p, "vram_bandwidth")
    form = p.stated["form"].text if "form" in p.stated else ""
    return Gpu(
        name=p.name,
        title=p.title,
        vram_bytes=p.number("vram"),
        processor=processor,
        link=str(p.parts["link"]),
        host=str(p.parts["host"]),
        power_watts=p.number("power"),
        idle_share=p.number("idle_share"),
        form=form,
    )


def to_host(p: Profile) -> Host:
    return Host(
        name=p.name,
        title=p.title,
        cores=int(p.number("cores")),
        sockets=int(p.number("sockets")),
        ram_bytes=p.number("ram"),
        processor=_processor(p, "dram_bandwidth"),
        link=str(p.parts["link"]),
        disk=str(p.parts["disk"]),
        power_watts=p.number("power"),
        process_bytes=p.number("process"),
        ram_max_bytes=p.number_or("ram_max", math.inf),
        idle_share=p.number("idle_share"),
        dram_watts_per_gib=p.number("dram_power"),
        dram_idle_share=p.number("dram_idle_share"),
        rest_watts=p.number("rest_power"),
        supply_efficiency=p.number("supply_efficiency"),
    )


def to_link(p: Profile) -> Link:
    """Raises InputError for a pageable copy that is faster than a pinned one."""
    pinned, pageable = p.number("efficiency"), p.number("pageable_efficiency")
    if pageable > pinned:
        raise InputError(f"pageable_efficiency {pageable:g} is above efficiency {pinned:g}", where=p.where)
    return Link(p.name, p.title, p.number("bandwidth"), pinned, pageable, p.number("latency"))


def to_disk(p: Profile) -> Disk:
    return Disk(
        name=p.name,
        title=p.title,
        capacity_bytes=p.number("capacity"),
        bytes_per_s=p.number("bandwidth"),
        efficiency=p.number("efficiency"),
        latency_s=p.number("latency"),
        power_watts=p.number("power"),
        queue_depth=int(p.number("queue_depth")),
        block_bytes=int(p.number("read_block")),
        cpu_bytes_per_s=p.number_or("cpu_rate", math.inf),
        lost_share=p.number_or("lost_to_cpu", 0.0),
        idle_share=p.number("idle_share"),
    )


def to_workload(p: Profile) -> Workload:
    low, high = int(p.number("prompt_tokens_min")), int(p.number("prompt_tokens_max"))
    out, requests = int(p.number("output_tokens")), int(p.number("requests"))
    return Workload(p.name, p.title, p.number("prompt_tokens_mean"), high, low, out, requests)


def to_pair(p: Profile) -> Pair:
    stated = p.stated["acceptance"]
    assert isinstance(stated.value, tuple), "acceptance is a list"
    spread = p.number("spread") if "spread" in p.stated else None
    acceptance = Acceptance(stated.value, stated.kind, stated.source, spread or 0.0)
    target, draft, text = (str(p.parts[key]) for key in ("target", "draft", "text"))
    return Pair(p.name, p.title, target, draft, text, acceptance, spread)


_TYPED: Final[dict[str, Callable[[Profile], Any]]] = {
    "gpu": to_gpu,
    "host": to_host,
    "link": to_link,
    "disk": to_disk,
    "workload": to_workload,
    "pair": to_pair,
}


def typed(profile: Profile) -> Any:
    """The value that a profile stands for; a machine's is made by specsim.machines, and is None here."""
    return _TYPED[profile.kind](profile) if profile.kind in _TYPED else None


def gpu(name: str) -> Gpu:
    return to_gpu(load("gpu", name))


def host(name: str) -> Host:
    return to_host(load("host", name))


def link(name: str) -> Link:
    return to_link(load("link", name))


def disk(name: str) -> Disk:
    return to_disk(load("disk", name))


def workload(name: str) -> Workload:
    return to_workload(load("workload", name))


def pair(name: str) -> Pair:
    return to_pair(load("pair", name))
