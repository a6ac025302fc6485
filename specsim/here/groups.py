"""Linux's control groups: which ones hold this process, and what they say of its memory, in version 2 and 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from specsim.here.files import meminfo, text

_LIMITS: Final = ("memory.max", "memory.limit_in_bytes")
_PEAKS: Final = ("memory.peak", "memory.max_usage_in_bytes")


def folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's group and those around it. In a container its own path may not be there: then only the top is."""
    base = root / "sys/fs/cgroup"
    for line in text(root / "proc/self/cgroup").splitlines():
        number, names, path = line.split(":", 2)
        if number == "0" or controller in names.split(","):
            top = base if number == "0" else base / controller
            here = top / path.strip("/")
            yield from [here, *(parent for parent in here.parents if parent.is_relative_to(top))]


def memory_limit(folder: Path) -> int | None:
    """Bytes that a group may take; None where it may take all."""
    return _first_number(folder, _LIMITS)


def tightest(root: Path = Path("/")) -> tuple[int, Path] | None:
    """The smallest limit on the memory of this process, with its group. Version 1 writes "none" as a limit that no
    machine has, so one as large as the RAM is none."""
    installed = meminfo(root).get("MemTotal", 0)
    limits = [(limit, folder) for folder in folders(root, "memory") if (limit := memory_limit(folder)) is not None]
    limit, folder = min(limits, default=(installed, root))
    return (limit, folder) if limit < installed else None


def memory_peak(folder: Path) -> int | None:
    """The most bytes that a group has ever taken, its page cache with it; None where the kernel does not say."""
    return _first_number(folder, _PEAKS)


def _first_number(folder: Path, names: tuple[str, ...]) -> int | None:
    for name in names:
        if (words := text(folder / name).strip()).isdigit():  # "max" is no limit
            return int(words)
    return None
