"""Rank 0's eye on the others: whether they are ready, what they report, and that none is gone."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Final

from executor.engine import Engine
from executor.ranks.messages import End, Kind, Share, read_report, tell
from executor.ranks.pulse import BEAT_S, MISSED_BEATS
from executor.ranks.world import Channel, RankError, World

_TICK_S: Final = 0.1
#: whoever starts ranks stops all where one is gone; the closed connection has told which by then, on a busy machine too
_NOTICED_S: Final = 5.0
_LEAVE_S: Final = 0.5


class Crew:
    """The other ranks of a run, as a context manager: leaving it with an error dismisses them.

    The first rank that reports an error, whose connection is closed, or of which nothing is heard for `MISSED_BEATS`
    beats, ends the run, and so does SIGTERM, which is what the others' end brings here. While the job runs, its engine
    raises what happened.
    """

    def __init__(self, world: World, beat_s: float = BEAT_S) -> None:
        self.world, self._beat_s = world, beat_s
        self.error: RankError | None = None
        self._engine: Engine | None = None
        self._shares: dict[int, Share] = {}
        self._ready: set[int] = set()
        self._changed = threading.Condition()  # guards all of these
        self._left = False
        self._missed = dict.fromkeys(world.desks, 0)  # beats of this rank's own since one was heard of
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._listen, args=item, name=f"specsim rank {item[0]}", daemon=True)
            for item in world.desks.items()
        ]
        self._threads.append(threading.Thread(target=self._count, name="specsim beats", daemon=True))

    def __enter__(self) -> Crew:
        for thread in self._threads:
            thread.start()
        self._handler: Any = signal.signal(signal.SIGTERM, self._terminate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None:
            self.break_off()
        self._left = True
        self._over.set()
        for thread in self._threads:
            thread.join(_LEAVE_S)
        # Whoever sends SIGTERM because a rank is gone must not keep this one from telling which.
        signal.signal(signal.SIGTERM, self._handler if error is None else signal.SIG_IGN)

    def watch(self, engine: Engine) -> None:
        """Return when all have loaded their weights; from here on `engine` raises what happens to them. Raises
        RankError where one cannot, or is gone."""
        self._wait(self._ready)
        with self._changed:
            if self.error is not None:
                raise self.error
            self._engine = engine

    def break_off(self) -> None:
        """An error has ended the run: tell the others, and end whatever waits for them. May be called again."""
        if self._left:
            return
        self._left = True
        self.world.abort(lambda desk: tell(desk, End(failed=True)))

    def dismiss(self) -> list[Share]:
        """All is done: what each of ranks 1, 2, ... did. Raises RankError likewise."""
        for channel in self.world.desks.values():
            tell(channel, End())
        self._wait(self._shares)
        return [self._shares[rank] for rank in sorted(self._shares)]

    def _wait(self, present: set[int] | dict[int, Share]) -> None:
        with self._changed:
            while len(present) < len(self.world.desks):
                if self.error is not None:
                    raise self.error
                self._changed.wait(_TICK_S)

    def _listen(self, rank: int, desk: Channel) -> None:
        try:
            while rank not in self._shares:
                said = read_report(desk)
                self._missed[rank] = 0
                if said.kind is Kind.FAILED:
                    raise RankError(f"rank {rank}: {said.text}")
                with self._changed:
                    if said.share is not None:
                        self._shares[rank] = said.share
                    if said.kind is Kind.READY:
                        self._ready.add(rank)
                    self._changed.notify_all()
        except RankError as error:
            self._fail(error)

    def _count(self) -> None:
        """Own beats, and no clock: where this machine slept, so may the others have done."""
        while not self._over.wait(self._beat_s):
            for rank in self._missed.keys() - self._shares.keys():
                self._missed[rank] += 1
                if self._missed[rank] > MISSED_BEATS:
                    self._fail(RankError(f"rank {rank} has been silent for {MISSED_BEATS} beats: does it hang?"))

    def _fail(self, error: RankError) -> None:
        with self._changed:
            if self._left or self.error is not None:
                return
            self.error = error
            self._changed.notify_all()
        if self._engine is not None:
            self._engine.fail(error)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """In the owner's thread, whatever it is doing. While the job runs, the engine raises what happened: what has
        finished is then being written, and must not be interrupted."""
        later = threading.Timer(_NOTICED_S, self._fail, [RankError("stopped by SIGTERM")])
        later.daemon = True
        later.start()
        if self._engine is None and not self._left:
            until = time.monotonic() + _NOTICED_S
            while self.error is None and time.monotonic() < until:
                time.sleep(_TICK_S)
            raise self.error or RankError("stopped by SIGTERM")
