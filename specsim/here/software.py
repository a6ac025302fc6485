"""Installed packages, and what torch says of itself. torch is asked in a process of its own: it takes long to load, and
one that is broken must not take its doctor with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

_PATIENCE_S = 120
_PROBE = """
import json, torch
cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
built = torch.version.cuda and f"CUDA {torch.version.cuda}" or torch.version.hip and f"ROCm {torch.version.hip}" or ""
print(json.dumps({"built_for": built, "cards": cards, "instructions": torch.backends.cpu.get_cpu_capability()}))
"""


@dataclass(frozen=True, slots=True)
class Torch:
    """`built_for` is as in "CUDA 12.8", "" for a build that knows no GPU; `cards` are those that it sees;
    `instructions` is what its kernels for the CPU are made of; `complaint` is why it cannot be asked."""

    built_for: str = ""
    cards: tuple[str, ...] = ()
    instructions: str = ""
    complaint: str = ""


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed version by package, None where it is missing."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def ask_torch() -> Torch:
    """What torch says of itself; it has to be installed."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
        told = json.loads(done.stdout.splitlines()[-1])
        return Torch(told["built_for"], tuple(told["cards"]), told["instructions"])
    except subprocess.TimeoutExpired:
        return Torch(complaint=f"did not load within {_PATIENCE_S} s")
    except (IndexError, ValueError):
        return Torch(complaint=(done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
