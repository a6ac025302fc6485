"""Runs a task graph for real: a worker thread per stream, FIFO, each task when those it depends on are done.

The engine knows nothing of models. It gets tasks and, for each, what to call; it keeps the order that the graph
promises, measures when every task ran, and sees to it that nothing hangs: the first error of any thread, or a task
that does not end, stops all streams and is raised in the thread that waits.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from executor.lanes import HostLane, Lane, Mark
from specsim.errors import SpecsimError
from specsim.schedule.graph import Task
from specsim.timeline.timeline import Span, Timeline

#: no single task takes this long; one that does hangs, on a dead disk for example
STALLED_S: Final = 600.0
#: spans that are kept of a run; later ones are only counted
MOST_SPANS: Final = 200_000
_TICK_S: Final = 0.1

#: what a task does; the bytes that it moved (0 for computations)
Action = Callable[[], int]


class StalledError(SpecsimError):
    """A task that did not end."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """For tests: a random delay of up to `delay_s` before and after each task, so that every race has its chance."""

    seed: int
    delay_s: float


@dataclass(slots=True)
class _Run:
    """A task that is to run, runs or has run. `span` is (start, end) on the engine's clock, None before the end."""

    task: Task
    action: Action
    done: bool = False
    mark: Mark | None = None
    started: float = 0.0
    ended: float = 0.0
    bytes: int = 0


class Engine:
    """Streams come into being with their first task. `lanes(stream)` says what a stream's tasks run on: the calling
    host thread, or a CUDA stream. Use it as a context manager: leaving it stops all threads."""

    def __init__(self, lanes: Callable[[str], Lane] = HostLane, *, chaos: Chaos | None = None) -> None:
        self._lanes, self._chaos = lanes, chaos
        self._runs: list[_Run] = []
        self._streams: dict[str, _Stream] = {}
        self._change = threading.Condition()
        self._error: BaseException | None = None
        self._stopping = False
        self.completed = 0
        self.moved: dict[str, int] = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def submit(self, tasks: Sequence[Task], actions: Sequence[Action]) -> None:
        """Append tasks, whose `deps` count from the first task ever submitted, in submission order."""
        with self._change:
            for task, action in zip(tasks, actions, strict=True):
                self._runs.append(_Run(task, action))
                stream = self._streams.get(task.stream)
                if stream is None:
                    stream = self._streams[task.stream] = _Stream(self, task.stream)
                stream.queue.append(len(self._runs) - 1)
            self._change.notify_all()
        for stream in self._streams.values():
            stream.start()

    def wait(self, tasks: Sequence[int], on_tick: Callable[[], None] = lambda: None) -> None:
        """Return once all of `tasks` have ended; `on_tick` is called a few times a second meanwhile, and at the end.

        Raises the first error of any stream, and StalledError when no task has ended for `STALLED_S`.
        """
        self._until(lambda: all(self._runs[i].done for i in tasks), on_tick)
        for i in tasks:
            mark = self._runs[i].mark
            if mark is not None:
                mark.synchronize()
        on_tick()

    def drain(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Return once everything that was submitted has ended; raises as `wait` does."""
        self._until(lambda: self.completed == len(self._runs), on_tick)
        on_tick()

    def _until(self, reached: Callable[[], bool], on_tick: Callable[[], None]) -> None:
        seen, since = -1, time.monotonic()
        while True:
            with self._change:
                if self._error is not None:
                    raise self._error
                if reached():
                    return
                if self.completed != seen:
                    seen, since = self.completed, time.monotonic()
                self._change.wait(_TICK_S)
            if time.monotonic() - since > STALLED_S:
                self._fail(StalledError(f"nothing has moved for {STALLED_S:.0f} s in {self._running()}"))
            on_tick()

    def stop(self) -> None:
        """End all threads; tasks that have not begun never will."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        for stream in self._streams.values():
            stream.join()

    def timeline(self) -> Timeline:
        """What has run so far. Tasks that were skipped, because nothing was left to do, took no time."""
        with self._change:
            ended = [i for i, run in enumerate(self._runs[:MOST_SPANS]) if run.done]
            place = {old: new for new, old in enumerate(ended)}
            runs = [self._runs[i] for i in ended]
        spans = tuple(
            Span(r.task.name, r.task.stream, r.task.kind, *_span(r), sum(w.flops for w in r.task.work), r.bytes)
            for r in runs
        )
        return Timeline(spans, tuple(tuple(place[d] for d in r.task.deps if d in place) for r in runs))

    def _running(self) -> str:
        with self._change:
            names = [s.current for s in self._streams.values() if s.current]
        return ", ".join(names) or "any stream"

    def _fail(self, error: BaseException) -> None:
        with self._change:
            if self._error is None:
                self._error = error
            self._stopping = True
            self._change.notify_all()


class _Stream:
    """One FIFO queue and the thread that works it off."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        self.queue: deque[int] = deque()
        self.current = ""
        self._thread = threading.Thread(target=self._work, name=f"specsim {name}", daemon=True)
        self._started = False

    def start(self) -> None:
        if not self._started:
            self._started = True
            self._thread.start()

    def join(self) -> None:
        """Wait for the thread, but not for ever: a task that hangs must not keep the error from being told."""
        if self._started and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _work(self) -> None:
        engine, change = self.engine, self.engine._change
        rng = random.Random(f"{engine._chaos.seed} {self.name}") if engine._chaos else None
        try:
            lane = engine._lanes(self.name)
            while True:
                with change:
                    while not engine._stopping and not self._ready():
                        change.wait()
                    if engine._stopping:
                        return
                    run = engine._runs[self.queue.popleft()]
                    marks = [m for d in run.task.deps if (m := engine._runs[d].mark) is not None]
                    self.current = run.task.name
                self._pause(rng)
                lane.begin(marks)
                run.started = time.perf_counter()
                run.bytes = run.action()
                run.ended = time.perf_counter()
                run.mark = lane.end()
                self._pause(rng)
                with change:
                    run.done = True
                    run.action = _nothing  # so that what it held can go
                    self.current = ""
                    engine.completed += 1
                    engine.moved[self.name] = engine.moved.get(self.name, 0) + run.bytes
                    change.notify_all()
        except BaseException as error:
            engine._fail(error)

    def _ready(self) -> bool:
        runs = self.engine._runs
        return bool(self.queue) and all(runs[d].done for d in runs[self.queue[0]].task.deps)

    def _pause(self, rng: random.Random | None) -> None:
        if rng is not None and self.engine._chaos is not None:
            time.sleep(rng.random() * self.engine._chaos.delay_s)


def _nothing() -> int:
    return 0


def _span(run: _Run) -> tuple[float, float]:
    if run.mark is not None:
        return run.mark.span()
    return run.started, run.ended
