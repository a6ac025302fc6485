"""The team of threads that torch computes with: each thread that computes on all cores gets one of its own, for good.

The OpenMP runtime spins between operations, which spares most of the time it takes to wake a team up, but only while
there are no more threads than cores (see executor/__init__.py). A team that is no longer needed has to go.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

#: OpenMP 5.0's `omp_pause_soft`: threads go, what they computed stays, and the next parallel region has them again
_SOFT: Final = 1


def dismiss_team() -> None:
    """Let the calling thread's team go; its next parallel operation gathers another. Does nothing where the runtime
    cannot do that, or cannot be found."""
    for library in _runtimes():
        with suppress(OSError, AttributeError):
            ctypes.CDLL(library).omp_pause_resource_all(_SOFT)


def _runtimes(maps: Path = Path("/proc/self/maps")) -> set[str]:
    """Files of the OpenMP runtimes that this process has loaded."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    found = (re.search(r"(/\S*/lib(?:gomp|omp|iomp5)\b[^/]*\.so[^/ ]*)$", line) for line in lines)
    return {match[1] for match in found if match}
