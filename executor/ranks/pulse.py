"""What a rank reports to the first, and between reports a sign of life: so one that stands still is told from one that
computes."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final

from executor.ranks.messages import Kind, Report, report
from executor.ranks.world import Channel, RankError

BEAT_S: Final = 1.0
#: one of which nothing was heard for so many beats hangs, or its machine is gone
MISSED_BEATS: Final = 30


class Reports:
    """To rank 0, from any thread; within it as a context manager there is a beat every `beat_s`. After the `last` one
    nobody listens. Raises RankError where rank 0 is gone."""

    def __init__(self, desk: Channel, beat_s: float = BEAT_S) -> None:
        self._desk, self._beat_s = desk, beat_s
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="specsim pulse", daemon=True)

    def __enter__(self) -> Reports:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def say(self, what: Report, *, last: bool = False) -> None:
        with self._lock:
            if not self._over.is_set():
                if last:
                    self._over.set()
                report(self._desk, what)

    def _beat(self) -> None:
        try:
            while not self._over.wait(self._beat_s):
                self.say(Report(Kind.BEAT))
        except RankError:
            return  # who waits for an order hears of it
