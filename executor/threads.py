"""The team of threads that torch computes with: each thread that computes on all cores gets one of its own, for good.

The OpenMP runtime spins between operations, which spares most of the time it takes to wake a team up, but only while
there are no more threads than cores (see executor/__init__.py). A team that is no longer needed has to go.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import torch

#: OpenMP 5.0's `omp_pause_soft`: what was computed stays, and the next parallel region has its threads again
_SOFT: Final = 1
#: torch's runtime: others keep their threads when they pause
_RUNTIME: Final = re.compile(r"libgomp(?!-plugin)[^/]*\.so[^/]*$")

_forked = False


def _in_a_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone, which then has no team."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def dismiss_team() -> None:
    """Let the team of the calling thread go, and no other's; its next parallel operation gathers another. Does nothing
    where the runtime is not GNU's, or in a child of a fork, which has not the threads that it would wait for."""
    for library in () if _forked else _runtimes():
        with suppress(OSError, AttributeError):
            ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_LAZY).omp_pause_resource_all(_SOFT)


def _runtimes(maps: Path = Path("/proc/self/maps")) -> set[str]:
    """Files of the GNU OpenMP runtimes that this process has loaded."""
    try:
        lines = maps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    files = {parts[5] for line in lines if len(parts := line.split(maxsplit=5)) == 6}
    return {file for file in files if _RUNTIME.search(file)}
