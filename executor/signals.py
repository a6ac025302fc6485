"""Moments at which an interrupt has to wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[None]:
    """What a program does on SIGINT and SIGTERM, it does after what is within, and not in the middle of it; a second
    one ends the process at once. Signals are heard in the main thread only, so elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    heard: list[tuple[int, FrameType | None]] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append((number, frame))
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    own = [number for number, handler in handlers.items() if callable(handler)]  # others are left to the system
    for number in own:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number in own:
            signal.signal(number, handlers[number])
        for heard_number, frame in heard:
            handler = handlers[signal.Signals(heard_number)]
            if callable(handler):
                handler(heard_number, frame)
