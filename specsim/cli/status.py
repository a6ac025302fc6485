"""One line on stderr that says what a long command is doing, if a person is watching."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def status(label: str) -> Iterator[Callable[[str], None]]:
    """Yield `say(what)`, which rewrites the line on a terminal and does nothing elsewhere."""
    stream, start = sys.stderr, time.monotonic()
    terminal = stream.isatty()

    def say(what: str) -> None:
        if terminal:
            stream.write(f"\r\x1b[K{label}, {time.monotonic() - start:.0f} s: {what}"[:120])
            stream.flush()

    try:
        yield say
    finally:
        if terminal:
            stream.write("\r\x1b[K")
            stream.flush()
