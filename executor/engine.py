"""Runs a task graph for real: streams are FIFO, and each task runs when those it depends on are done.

Every stream has a thread, or shares one with others: streams that compute for one processor take turns that way, as two
products at once, each on all cores, would hold each other up at every barrier; and the one team of threads that they
then need may spin a little between operations, which the library does not with more threads than cores.

The engine knows nothing of models. It gets tasks and, for each, what to call; it keeps the order that the graph
promises, measures when every task ran, and sees to it that nothing hangs: the first error of any thread, a thread that
is gone, or a task that does not end, stops all streams and is raised in the thread that waits. Who has dealt with the
error may go on with other tasks.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from executor.lanes import HostLane, Lane, Mark
from executor.taskruns import Action, Run, Runs, nothing, span
from specsim.errors import InputError, SpecsimError
from specsim.schedule.graph import Task
from specsim.timeline.timeline import Span, Timeline

#: no task takes this long where nothing else is said of it; one that does hangs
STALLED_S: Final = 600.0
#: a thread that ends its task by then is waited for when all stop
LEAVING_S: Final = 5.0
#: spans that are kept of a run; later ones are only counted
MOST_SPANS: Final = 200_000
#: of a longer pause between two ticks only so much counts: the whole process stood still, and its tasks with it
LONGEST_TICK_S: Final = 1.0
#: what to do where the system gives no more threads
THREADS_HINT: Final = "raise the limit on processes and threads (ulimit -u), or end other programs"
_TICK_S: Final = 0.1
_SWITCH_S: Final = 2e-4


class StalledError(SpecsimError):
    """A task that did not end, or a thread that did."""


class _StoppedError(Exception):
    """The engine stops, and with it the thread that hears of it."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """For tests: a random delay of up to `delay_s` before and after each task, of all streams or of one that then falls
    behind the others, so that every race has its chance."""

    seed: int
    delay_s: float
    stream: str | None = None


class Engine:
    """Streams come into being with their first task. `lanes(stream)` says what a stream's tasks run on: the calling
    host thread, or a CUDA stream; `worker(stream)` names the thread, one of its own unless others have the same.
    `patience(task)` is how many seconds a task may take before it counts as stalled. Of the first `spans` tasks the
    times are kept, others are let go when they have ended. Use it as a context manager: leaving it stops all threads.
    """

    def __init__(
        self,
        lanes: Callable[[str], Lane] = HostLane,
        worker: Callable[[str], str] = str,
        *,
        patience: Callable[[Task], float] | None = None,
        chaos: Chaos | None = None,
        spans: int = MOST_SPANS,
    ) -> None:
        self.lanes, self.worker, self.chaos = lanes, worker, chaos
        self.patience = patience or (lambda task: STALLED_S)
        self.completed = 0
        self.moved: dict[str, int] = {}
        self._runs = Runs(spans)
        self._streams: dict[str, _Stream] = {}
        self._workers: dict[str, _Worker] = {}
        self._lock = threading.Lock()  # guards all that follows, and the runs' states
        self._owner = threading.Condition(self._lock)
        self._awaited: set[int] = set()
        self._drained = 0  # all tasks before this one have ended
        self._error: BaseException | None = None
        self._stopping = False
        self._leave_by: float | None = None  # on the monotonic clock
        self._waited = 0.0  # seconds that the owner has waited in all: the clock by which tasks are found to stall
        self._moved_at = 0.0  # when a task has last begun or ended, on that clock

    def __enter__(self) -> Engine:
        # The owner lowers the next round while this one runs: it must not keep the interpreter from the workers for
        # the usual 5 ms at a time.
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        sys.setswitchinterval(self._switch_interval)

    def submit(self, tasks: Sequence[Task], actions: Sequence[Action]) -> None:
        """Append tasks, whose `deps` count from the first task ever submitted, in submission order."""
        with self._lock:
            for task, action in zip(tasks, actions, strict=True):
                if task.stream not in self._streams:
                    self._open(task.stream)
                self._streams[task.stream].queue.append(len(self._runs))
                self._runs.append(Run(task, action))
            self._wake()
        for worker in self._workers.values():
            worker.start()

    def wait(self, tasks: Iterable[int], on_tick: Callable[[], None] = lambda: None) -> None:
        """Return once all of `tasks` have ended; `on_tick` is called a few times a second meanwhile, and at the end.

        Raises the first error of any stream, and StalledError when a task takes longer than the engine has patience.
        """
        tasks = list(tasks)
        ticked = time.monotonic()
        while True:
            with self._lock:
                self._awaited = {i for i in tasks if not self._runs[i].done}
                if self._awaited and self._error is None:
                    self._owner.wait(_TICK_S)
                if self._error is not None:
                    raise self._error
                if not self._awaited:
                    break
                now = time.monotonic()
                self._waited += min(now - ticked, LONGEST_TICK_S)
                ticked = now
                stalled = self._stalled()
            if stalled:
                self.fail(StalledError(f"run: {stalled}"))
            on_tick()
        for i in tasks:
            mark = self._runs[i].mark
            if mark is not None:
                mark.synchronize()
        with self._lock:
            self._runs.let_go()
        on_tick()

    def check(self, since: float) -> float:
        """For an owner that waits elsewhere: raise what `wait` would, having waited since then, on the monotonic clock;
        returns the time now."""
        with self._lock:
            if self._error is not None:
                raise self._error
            now = time.monotonic()
            self._waited += min(now - since, LONGEST_TICK_S)
            stalled = self._stalled()
        if stalled:
            self.fail(StalledError(f"run: {stalled}"))
        return now

    def drain(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Return once everything that was submitted has ended; raises as `wait` does."""
        self.wait(range(self._drained, len(self._runs)), on_tick)
        self._drained = len(self._runs)

    def stop(self, patience_s: float | None = None) -> bool:
        """End all threads; tasks that have not begun never will. Returns whether all have ended in so many seconds, or
        `LEAVING_S` after the first call: a task that hangs must not keep the error from being told."""
        now = time.monotonic()
        with self._lock:
            self._stopping = True
            self._leave_by = self._leave_by or now + LEAVING_S
            self._wake()
        until = self._leave_by if patience_s is None else now + patience_s
        return all(worker.join(until) for worker in self._workers.values())

    def resume(self) -> None:
        """Go on after `stop` has ended all threads, and its cause was dealt with: what had not run by then is dropped,
        and counts as done for those that depend on it."""
        with self._lock:
            for number in range(self._drained, len(self._runs)):
                if not (run := self._runs[number]).done:
                    run.done, run.dropped, run.action = True, True, nothing
            self._drained = len(self._runs)
            self._streams.clear()
            self._workers.clear()
            self._error, self._stopping, self._leave_by = None, False, None
            self._moved_at = self._waited

    def fail(self, error: BaseException) -> None:
        """Stop, and let the owner raise `error`, unless there was one before."""
        with self._lock:
            self._error = self._error or error
            self._stopping = True
            self._wake()
            self._owner.notify_all()

    def timeline(self) -> Timeline:
        """What has run so far. Tasks with nothing to do took no time."""
        with self._lock:
            ended = [i for i, run in self._runs.first() if run.done and not run.dropped]
            place = {old: new for new, old in enumerate(ended)}
            runs = [self._runs[i] for i in ended]
        spans = tuple(
            Span(r.task.name, r.task.stream, r.task.kind, *span(r), sum(w.flops for w in r.task.work), r.bytes)
            for r in runs
        )
        return Timeline(spans, tuple(tuple(place[d] for d in r.task.deps if d in place) for r in runs))

    def next_run(self, worker: _Worker) -> tuple[_Stream, Run, list[Mark]] | None:
        """What a worker is to run now, and the marks to wait for; None where it is to sleep until its bell is rung.

        Of its streams' next tasks that can run, one of the stream that the thread is named after goes first: what
        drafts uses the time in which the target waits for weights, and does not keep it from giving their places back.
        Raises _StoppedError at the end.
        """
        with self._lock:
            if self._stopping:
                raise _StoppedError
            ready = filter(self._ready, worker.streams)
            stream = min(ready, key=lambda stream: (stream.name != worker.name, stream.queue[0]), default=None)
            if stream is None:
                worker.asleep = True
                return None
            run = self._runs[stream.queue.popleft()]
            stream.current, stream.since = run.task, self._waited
            self._moved_at = self._waited
            return stream, run, [mark for d in run.task.deps if (mark := self._runs[d].mark) is not None]

    def ended(self, stream: _Stream, run: Run) -> None:
        """A task has ended: whoever can go on now is woken, and nobody else."""
        with self._lock:
            run.done = True
            run.action = nothing
            stream.current = None
            self._moved_at = self._waited
            self.completed += 1
            self.moved[stream.name] = self.moved.get(stream.name, 0) + run.bytes
            self._wake()
            if self._awaited and all(self._runs[i].done for i in self._awaited):
                self._owner.notify_all()

    def _open(self, name: str) -> None:
        stream = self._streams[name] = _Stream(name)
        at = self.worker(name)
        if at not in self._workers:
            self._workers[at] = _Worker(self, at)
        self._workers[at].streams.append(stream)

    def _wake(self) -> None:
        for worker in self._workers.values():
            if worker.asleep and (self._stopping or any(map(self._ready, worker.streams))):
                worker.asleep = False
                worker.bell.release()

    def _ready(self, stream: _Stream) -> bool:
        return bool(stream.queue) and all(self._runs[d].done for d in self._runs[stream.queue[0]].task.deps)

    def _stalled(self) -> str | None:
        """What hangs."""
        for worker in self._workers.values():
            if worker.gone:
                return f"the thread of {worker.name} has ended by itself"
        running = [stream for stream in self._streams.values() if stream.current is not None]
        for stream in running:
            assert stream.current is not None
            if self._waited - stream.since > (patience := self.patience(stream.current)):
                return f"{stream.current.name} has not ended for {patience:.0f} s: does the {stream.name} hang?"
        if not running and self._waited - self._moved_at > STALLED_S:
            return f"no task has begun for {STALLED_S:.0f} s"
        return None


@dataclass(slots=True, eq=False)
class _Stream:
    """One FIFO queue of tasks, the one that runs, and since when on the engine's clock. Guarded by its lock."""

    name: str
    queue: deque[int] = field(default_factory=deque)
    current: Task | None = None
    since: float = 0.0


class _Worker:
    """The thread that works off some streams. Its fields are guarded by the engine's lock."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        self.streams: list[_Stream] = []
        self.asleep = False
        self.bell = threading.Lock()  # held, so that who asks for it sleeps until it is rung
        self.bell.acquire()
        self._thread = threading.Thread(target=self._work, name=f"specsim {name}", daemon=True)
        self._started = False

    def start(self) -> None:
        """Raises InputError where the system gives no more threads."""
        if self._started:
            return
        try:
            self._thread.start()
        except RuntimeError:
            raise InputError(f"cannot start the thread of {self.name}", where="run", hint=THREADS_HINT) from None
        self._started = True

    @property
    def gone(self) -> bool:
        """Whether the thread is no more."""
        return self._started and not self._thread.is_alive()

    def join(self, until: float) -> bool:
        """Whether the thread has ended by `until`, on the monotonic clock."""
        if self._started:
            self._thread.join(timeout=max(0.0, until - time.monotonic()))
        return not self._started or self.gone

    def _work(self) -> None:
        engine = self.engine
        lanes: dict[str, tuple[Lane, Callable[[], None]]] = {}
        try:
            while True:
                found = engine.next_run(self)
                if found is None:
                    self.bell.acquire()
                    continue
                stream, run, marks = found
                if stream.name not in lanes:
                    lanes[stream.name] = engine.lanes(stream.name), _pauses(engine.chaos, stream.name)
                lane, pause = lanes[stream.name]
                pause()
                lane.begin(marks)
                run.started = time.perf_counter()
                moved = run.action()
                run.ended = time.perf_counter() if moved is not None else run.started
                run.bytes = moved or 0
                run.mark = lane.end()
                pause()
                engine.ended(stream, run)
        except _StoppedError:
            return
        except Exception as error:
            engine.fail(error)
        except BaseException as error:  # it would end the owner's program, and not with one line
            engine.fail(StalledError(f"run: the thread of {self.name} was ended by {type(error).__name__}"))


def _pauses(chaos: Chaos | None, stream: str) -> Callable[[], None]:
    """What a stream does before and after each task."""
    if chaos is None or chaos.stream not in (None, stream):
        return lambda: None
    rng = random.Random(f"{chaos.seed} {stream}")
    return lambda: time.sleep(rng.random() * chaos.delay_s)
