"""`specsim` commands in children of a process that has imported torch and computed nothing: they start in no time.

A process that has computed has threads, which a fork does not copy: so this one only waits, and children compute.
"""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch
import transformers

import executor.run
from specsim.cli.main import entry

#: what children are to find there
PRELOADED: Final = (torch, transformers.AutoTokenizer, executor.run)
_POLL_S: Final = 0.002


def start(argv: Sequence[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin `specsim ARGV...` in a child that calls `prepare` first; what it prints is appended to `log`. Its id."""
    return fork(lambda: entry(argv), log, prepare)


def fork(body: Callable[[], int | None], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Begin a child that calls `prepare`, then `body`, and ends with the status that it gives."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.close(file)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
            prepare()
            status = body() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def wait(child: int, seconds: float | None = None) -> int | None:
    """The child's exit status, -9 if signal 9 ended it and so on; None if it has not ended after `seconds`."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if _ended(child, seconds) else None


def _ended(child: int, seconds: float | None) -> bool:
    handle = os.pidfd_open(child)
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def signal_after(child: int, cpu_seconds: float, number: int = signal.SIGKILL) -> bool:
    """Send a signal once the child has computed for so long, which is the same moment on a busy machine; False where it
    ended before."""
    while not _ended(child, _POLL_S):
        if _cpu_seconds(child) >= cpu_seconds:
            os.kill(child, number)
            return True
    return False


def _cpu_seconds(child: int) -> float:
    """Of all its threads so far (proc(5): utime and stime, the 14th and 15th fields of stat)."""
    fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
