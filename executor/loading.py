"""Loading in a thread of its own: the one that waits hears of signals, and of a disk that hangs, meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from executor import engine
from executor.checkpoint.read import Reader
from executor.threads import one_thread
from specsim.errors import InputError

_TICK_S: Final = 0.1

T = TypeVar("T")


def load(prepare: Callable[[], T], reader: Reader, patience_s: float) -> T:
    """What `prepare` gives, without a team of threads, or its error. Raises StalledError where no read ends for
    `patience_s`, though some are under way. However it ends, its thread is waited for a little."""
    ready: Future[T] = Future()

    def work() -> None:
        try:
            with one_thread():
                ready.set_result(prepare())
        except Exception as error:
            ready.set_exception(error)
        except BaseException as error:
            ready.set_exception(engine.StalledError(f"run: the thread that loads was ended by {type(error).__name__}"))

    thread = threading.Thread(target=work, name="specsim load", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise InputError("cannot start the thread that loads", where="run", hint=engine.THREADS_HINT) from None
    try:
        total, waited, ticked = -1, 0.0, time.monotonic()
        while not ready.done():
            thread.join(_TICK_S)
            now = time.monotonic()
            waited += min(now - ticked, engine.LONGEST_TICK_S)
            ticked = now
            if not reader.pending or reader.total != total:
                total, waited = reader.total, 0.0
            elif waited > patience_s:
                raise engine.StalledError(f"run: loading has read nothing for {patience_s:.0f} s: does the disk hang?")
    finally:
        thread.join(engine.LEAVING_S)
    return ready.result()
