"""The process of the `specsim` command: its stdout is data, whatever libraries print, and it always has a stderr."""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from types import FrameType
from typing import Final

from specsim.cli.main import entry
from specsim.errors import Terminated

_ENDING: Final = (signal.SIGINT, signal.SIGTERM)


def command() -> int:
    """Run the process's arguments and return the exit status. Only for a process of our own: see `keep_stdout`."""
    if sys.stderr is None:  # `2>&-`: what is told then is told to nobody
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    keep_stdout()
    hear_signals()
    return entry()


def hear_signals() -> None:
    """SIGINT and SIGTERM end the command in good order, and a second one ends it at once. What the process was told to
    ignore it ignores."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def hear_again() -> None:
    """After an interrupt that has ended less than the command: the next one counts as the first."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as `_end` has left it
        hear_signals()


def _end(number: int, frame: FrameType | None) -> None:
    for each in _ENDING:
        signal.signal(each, signal.SIG_DFL)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def keep_stdout() -> None:
    """Leave stdout to what Python prints, and let no other code of this process reach it: HiGHS 1.12 prints a line when
    it repairs a solution, asked to or not (its issue 2783), from C and so past `sys.stdout`. A closed stdout stays
    closed, and no file that is opened later gets its number."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if isinstance(sys.stdout, TextIOWrapper):  # None in a process that was started without one
        buffering = 1 if sys.stdout.line_buffering else -1
        sys.stdout = os.fdopen(os.dup(1), "w", buffering, sys.stdout.encoding, sys.stdout.errors)
    os.dup2(nowhere, 1)
