"""What the system lets a process have: locked memory, open files, and pages that are larger than 4 KiB."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from pathlib import Path

from specsim.here.files import meminfo, text


@dataclass(frozen=True, slots=True)
class Limits:
    """None is no limit. `transparent` is when the kernel gives huge pages unasked: always, madvise, never, or "" where
    it does not say; `reserved_bytes` is what it keeps as huge pages."""

    locked_bytes: int | None
    open_files: int | None
    transparent: str
    reserved_bytes: int


def read_limits(root: Path = Path("/")) -> Limits:
    """Those of this process, and of the kernel whose /proc and /sys lie under `root`."""
    chosen = re.search(r"\[(\w+)\]", text(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    memory = meminfo(root)
    reserved = memory.get("HugePages_Total", 0) * memory.get("Hugepagesize", 0)
    return Limits(_soft(resource.RLIMIT_MEMLOCK), _soft(resource.RLIMIT_NOFILE), chosen[1] if chosen else "", reserved)


def _soft(which: int) -> int | None:
    limit, _ = resource.getrlimit(which)
    return None if limit == resource.RLIM_INFINITY else limit
