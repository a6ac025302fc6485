"""What this process takes of RAM beside its stores, kept small, measured, and checked against what there is.

The stores are the plan's; the interpreter, torch, its threads and compiled kernels are not, and the kernel's limits
count both. Linux only: elsewhere nothing is known, and nothing checked.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from specsim.errors import InputError
from specsim.here import files, groups
from specsim.units import MiB, show

#: What comes with a run, at most: the library's kernels, one for every shape that it meets (0.6 MiB each, of which
#: executor/__init__.py lets it keep 64), and the tasks and times of a job of some ten thousand tasks.
GROWTH_BYTES: Final = int(64 * MiB)
#: glibc's mallopt: freed temporaries go back to the system when they are this large, or this much of them is free at
#: the heap's end. By itself it moves these bounds up, to 32 and 64 MiB, with what the program frees.
_MMAP_THRESHOLD: Final = -3, int(16 * MiB)
_TRIM_THRESHOLD: Final = -1, int(16 * MiB)
#: one heap for all threads: what one of them has freed, another takes
_ARENA_MAX: Final = -8, 1

_START: Final = """
import torch, executor.run
from executor.process import resident_bytes
torch.ones(256, 256) @ torch.ones(256, 256)
print(resident_bytes())
"""


def keep_heap_small() -> None:
    """Have malloc give back what is free. Does nothing where it is not glibc's."""
    with suppress(OSError, AttributeError):
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX):
            ctypes.CDLL(None).mallopt(*option)


def trim_heap() -> None:
    """Give back now what malloc keeps for later: between phases, whose temporaries differ."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int | None:
    """What this process holds now, the pages of its libraries with it."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """The most that this process has held or, where a control group limits it, that its group has taken: the count that
    the kernel kills by."""
    limited = groups.tightest()
    peak = groups.memory_peak(limited[1]) if limited else None
    return peak if peak is not None else _status("VmHWM")


def share_bytes() -> int | None:
    """What a run takes beside its stores: a fresh process with everything imported and its threads started, and what
    grows with the run. Whole MiB."""
    done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=False)
    found = done.stdout.strip()
    return -(-(int(found) + GROWTH_BYTES) // int(MiB)) * int(MiB) if found.isdigit() else None


def check_room(stores: int, share: int, root: Path = Path("/")) -> None:
    """Raise InputError where `stores` bytes and the process's own `share` exceed what a control group or the machine
    has for this process. Nothing of the stores has been allocated yet."""
    needed = f"needs {show(stores + share, 'bytes')}: {show(stores, 'bytes')} for the plan's stores and "
    needed += f"{show(share, 'bytes')} for the process itself"
    limited = groups.tightest(root)
    if limited is not None and stores + share > limited[0]:
        has = f"the memory control group allows {show(limited[0], 'bytes')}"
        raise InputError(f"{needed}; {has}", where="run", hint=f"raise the limit, or {_smaller(limited[0] - share)}")
    free = files.meminfo(root).get("MemAvailable")
    if free is not None and stores + share > (left := free + (resident_bytes() or 0)):
        has = f"this machine has {show(left, 'bytes')} left"
        raise InputError(f"{needed}; {has}", where="run", hint=f"end other programs, or {_smaller(left - share)}")


def _smaller(room: int) -> str:
    return f"plan again with --ram {room / MiB:.0f}MiB" if room >= MiB else "plan for another machine"


def _status(key: str) -> int | None:
    found = re.search(rf"^{key}:\s*(\d+) kB$", files.text(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else None
