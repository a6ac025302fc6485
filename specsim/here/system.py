"""What the operating system says of this machine: cores, sockets, RAM, and the cgroup limits on them.

Linux writes it all in files; elsewhere the counts come from `os`, and nothing is known of limits or of other programs.
"""

from __future__ import annotations

import math
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from specsim.here.files import meminfo, text
from specsim.here.groups import folders, memory_limit

#: flags of /proc/cpuinfo, first of x86, then of ARM
INSTRUCTION_SETS: Final = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "asimdhp": "NEON FP16",
    "sve": "SVE",
    "sve2": "SVE2",
    "i8mm": "I8MM",
    "bf16": "BF16",
}


@dataclass(frozen=True, slots=True)
class System:
    """`cores` and `ram_bytes` are what this process may use; `available_bytes` is what of the RAM was free for it."""

    name: str
    cpu: str
    cores: int
    sockets: int
    ram_bytes: int
    available_bytes: int


def read_system(root: Path = Path("/")) -> System:
    """The machine whose /proc and /sys lie under `root`."""
    cpuinfo = text(root / "proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    sockets = set(re.findall(r"^physical id\s*:\s*(\d+)$", cpuinfo, re.MULTILINE))
    memory = meminfo(root)
    installed = memory.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [limit for folder in folders(root, "memory") if (limit := memory_limit(folder)) is not None]
    quotas = [quota for folder in folders(root, "cpu") if (quota := _cpu_quota(folder)) is not None]
    ram = min([installed, *limits])
    return System(
        name=re.sub(r"[^a-z0-9.-]+", "-", platform.node().lower()).strip("-") or "this-machine",
        cpu=model[1] if model else platform.machine(),
        cores=min([len(_cpus()), *map(math.ceil, quotas)]),
        sockets=max(1, len(sockets)),
        ram_bytes=ram,
        available_bytes=min(ram, memory.get("MemAvailable", ram)),
    )


def instruction_sets(root: Path = Path("/")) -> tuple[str, ...]:
    """Those that matrix products are made of, the oldest first; none where the system does not say."""
    told = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text(root / "proc/cpuinfo"), re.MULTILINE)
    flags = set(told[1].split()) if told else set()
    return tuple(name for flag, name in INSTRUCTION_SETS.items() if flag in flags)


def busy_seconds(root: Path = Path("/")) -> float | None:
    """Seconds that the cores of this process have been busy since boot, with anything; None where that is unknown."""
    wanted = {f"cpu{cpu}" for cpu in _cpus()}
    lines = [line.split() for line in text(root / "proc/stat").splitlines()]
    # user, nice, system; not idle, iowait; irq, softirq, steal
    ticks = [sum(int(field) for field in (*line[1:4], *line[6:9])) for line in lines if line and line[0] in wanted]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if ticks else None


def _cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpu_quota(folder: Path) -> float | None:
    """Cores' worth of time per period."""
    words = text(folder / "cpu.max").split() or [
        text(folder / "cpu.cfs_quota_us").strip(),  # -1 is no limit
        text(folder / "cpu.cfs_period_us").strip(),
    ]
    return int(words[0]) / int(words[1]) if all(word.isdigit() for word in words) else None
