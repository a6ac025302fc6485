"""The engine's promises: order, errors that are told, and nothing that hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from executor.devices import Devices, worker_for
from executor.engine import Chaos, Engine, StalledError
from executor.lanes import HostLane
from specsim.errors import InputError
from specsim.schedule.graph import Task


def task(name: str, stream: str, *deps: int) -> Task:
    return Task(name, stream, "ffn", (), deps)


def test_a_task_runs_after_those_it_depends_on_and_after_the_one_before_it_on_its_stream() -> None:
    log: list[str] = []
    tasks = [task("load", "h2d"), task("use", "gpu", 0), task("next", "h2d", 1), task("last", "gpu", 2)]
    with Engine(chaos=Chaos(seed=1, delay_s=0.002)) as engine:
        engine.submit(tasks, [lambda name=t.name: log.append(name) or 0 for t in tasks])  # type: ignore[misc]
        engine.wait([3])
    assert log == ["load", "use", "next", "last"]


def test_streams_run_side_by_side() -> None:
    together = threading.Barrier(2, timeout=10)  # breaks unless both are there
    with Engine() as engine:
        engine.submit([task("a", "gpu"), task("b", "disk")], [lambda: together.wait() and 0] * 2)
        engine.wait([0, 1])
    assert not together.broken


def test_tasks_may_be_submitted_while_others_run_and_depend_on_them() -> None:
    log: list[str] = []
    with Engine() as engine:
        engine.submit([task("first", "cpu")], [lambda: log.append("first") or 0])  # type: ignore[func-returns-value]
        engine.submit([task("second", "disk", 0)], [lambda: log.append("second") or 0])  # type: ignore[func-returns-value]
        engine.drain()
    assert log == ["first", "second"]


def test_bytes_are_counted_by_stream_and_noted_on_the_timeline() -> None:
    with Engine() as engine:
        engine.submit([task("a", "h2d"), task("b", "h2d"), task("c", "cpu", 1)], [lambda: 5, lambda: 7, lambda: 0])
        engine.drain()
        assert engine.moved == {"h2d": 12, "cpu": 0}
        timeline = engine.timeline()
    assert [(s.name, s.stream, s.bytes) for s in timeline.spans] == [("a", "h2d", 5), ("b", "h2d", 7), ("c", "cpu", 0)]
    assert timeline.preds == ((), (), (1,))
    assert timeline.spans[0].end <= timeline.spans[1].start <= timeline.spans[1].end <= timeline.spans[2].start


@pytest.mark.parametrize("stream", ["gpu", "disk"])
def test_an_error_of_any_thread_is_raised_where_the_owner_waits(stream: str) -> None:
    def fail() -> int:
        raise OSError("the disk is on fire")

    with Engine() as engine:
        engine.submit([task("bad", stream), task("never", "cpu", 0)], [fail, lambda: 0])
        with pytest.raises(OSError, match="the disk is on fire"):
            engine.wait([1])


def test_the_first_error_stops_all_streams() -> None:
    ran: list[str] = []

    def fail() -> int:
        raise ValueError("first")

    with Engine() as engine:
        tasks = [task("bad", "disk"), task("after", "disk", 0), task("other", "cpu", 0)]
        engine.submit(tasks, [fail, lambda: ran.append("after") or 0, lambda: ran.append("other") or 0])  # type: ignore[func-returns-value]
        with pytest.raises(ValueError, match="first"):
            engine.drain()
    assert ran == []


def test_a_thread_that_cannot_start_is_an_error_too() -> None:
    def no_lane(stream: str) -> HostLane:
        raise RuntimeError(f"no lane for {stream}")

    with Engine(no_lane) as engine:
        engine.submit([task("a", "gpu")], [lambda: 0])
        with pytest.raises(RuntimeError, match="no lane for gpu"):
            engine.drain()


def test_streams_that_share_a_processor_take_turns() -> None:
    computing, most = 0, 0
    lock = threading.Lock()

    def compute() -> int:
        nonlocal computing, most
        with lock:
            computing += 1
            most = max(most, computing)
        threading.Event().wait(0.002)  # long enough for the other stream to come in between, if it could
        with lock:
            computing -= 1
        return 0

    with Engine(worker=worker_for(Devices("cpu"))) as engine:
        tasks = [task(f"{stream} {i}", stream) for i in range(10) for stream in ("cpu", "cpu.draft")]
        engine.submit(tasks, [compute] * len(tasks))
        engine.drain()
    assert most == 1


def test_a_stream_that_waits_does_not_hold_up_the_others_of_its_thread() -> None:
    ran: list[str] = []
    arrived = threading.Event()

    def draft() -> int:
        ran.append("draft")
        arrived.set()
        return 0

    def verify() -> int:
        ran.append("verify")
        return 0

    with Engine(worker=worker_for(Devices("cpu"))) as engine:
        tasks = [task("weights", "disk"), task("verify", "cpu", 0), task("draft", "cpu.draft")]
        engine.submit(tasks, [lambda: arrived.wait(10) and 0, verify, draft])
        engine.drain()
    assert ran == ["draft", "verify"]


def test_drafting_takes_the_time_in_which_the_target_waits_and_no_other() -> None:
    """Both could go on when the weights are there, and the draft has waited for longer."""
    ran: list[str] = []
    arrived = threading.Event()

    def act(name: str, wait: bool = False) -> Callable[[], int]:
        def action() -> int:
            if wait:  # until the weights are there, and the engine has been told
                arrived.wait(10)
            ran.append(name)
            return 0

        return action

    with Engine(worker=worker_for(Devices("cpu"))) as engine:
        drafts = [task("draft 0", "cpu.draft"), task("draft 1", "cpu.draft")]
        tasks = [*drafts, task("weights", "disk"), task("next weights", "disk"), task("verify", "cpu", 2)]
        reads = [lambda: 0, lambda: arrived.set() or 0]
        engine.submit(tasks, [act("draft 0", wait=True), act("draft 1"), *reads, act("verify")])
        engine.drain()
    assert ran == ["draft 0", "verify", "draft 1"]


@pytest.mark.parametrize(
    ("devices", "threads"),
    [
        (Devices("cpu"), ["cpu", "cpu", "disk"]),
        (Devices("gpu"), ["gpu", "gpu", "cpu", "h2d", "h2d.kv"]),
        (Devices("gpu", torch.device("cuda", 0)), ["gpu", "gpu.draft", "cpu", "h2d", "h2d.kv"]),
    ],
)
def test_streams_that_compute_on_the_host_for_one_processor_share_a_thread(
    devices: Devices, threads: list[str]
) -> None:
    streams = ["cpu", "cpu.draft", "disk"] if devices.main == "cpu" else ["gpu", "gpu.draft", "cpu", "h2d", "h2d.kv"]
    assert [worker_for(devices)(stream) for stream in streams] == threads


def test_an_interrupt_of_the_owner_ends_the_threads() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    release = threading.Event()
    with Engine() as engine:
        engine.submit([task("long", "cpu"), task("next", "cpu")], [lambda: release.wait(10) and 0, lambda: 0])
        with pytest.raises(KeyboardInterrupt):
            engine.wait([1], interrupt)
        release.set()
    assert not [t for t in threading.enumerate() if t.name.startswith("specsim")]


def test_the_owner_is_called_while_it_waits_and_once_more_at_the_end() -> None:
    ticks: list[int] = []
    release = threading.Event()

    def tick() -> None:
        ticks.append(engine.completed)
        release.set()

    with Engine() as engine:
        engine.submit([task("a", "cpu")], [lambda: release.wait(10) and 0])
        engine.wait([0], tick)
    assert ticks[0] == 0
    assert ticks[-1] == 1


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """A task that hangs until the test is over; nobody waits for its thread."""
    monkeypatch.setattr("executor.engine.LEAVING_S", 0.0)
    over = threading.Event()
    yield lambda: int(over.wait(60))
    over.set()


def test_a_task_that_never_ends_is_named(hang: Callable[[], int]) -> None:
    with Engine(patience=lambda task: 0.1 if task.stream == "disk" else 60) as engine:
        engine.submit([task("verify.0/A/L00/load_ffn.0", "disk"), task("ffn", "cpu", 0)], [hang, lambda: 0])
        with pytest.raises(StalledError, match=r"L00/load_ffn\.0 has not ended for 0 s: does the disk hang\?"):
            engine.drain()
        assert not engine.stop(patience_s=0.0), "a thread that hangs is not waited for"


def test_time_in_which_the_whole_process_stood_still_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped from a shell for an hour, or put to sleep."""
    clock, ticks = 0.0, 0

    def monotonic() -> float:
        nonlocal clock
        clock += 3600.0
        return clock

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 5:
            release.set()

    release = threading.Event()
    with Engine(patience=lambda task: 100.0) as engine:
        monkeypatch.setattr("executor.engine.time.monotonic", monotonic)
        engine.submit([task("a", "disk")], [lambda: release.wait(60) and 0])
        engine.wait([0], tick)
        monkeypatch.undo()
    assert ticks >= 5


@pytest.mark.parametrize("fatal", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_thread_that_is_ended_is_an_error_of_one_line(fatal: type[BaseException]) -> None:
    def die() -> int:
        raise fatal

    with Engine() as engine:
        engine.submit([task("a", "disk"), task("b", "cpu", 0)], [die, lambda: 0])
        with pytest.raises(StalledError, match=f"run: the thread of disk was ended by {fatal.__name__}"):
            engine.drain()


def test_a_thread_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor.engine._Worker._work", lambda self: None)
    with Engine() as engine:
        engine.submit([task("a", "disk")], [lambda: 0])
        with pytest.raises(StalledError, match="run: the thread of disk has ended by itself"):
            engine.drain()


def test_threads_that_the_system_does_not_give_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Engine() as engine, pytest.raises(InputError, match=r"run: cannot start the thread of disk; .*ulimit -u"):
        engine.submit([task("a", "disk")], [lambda: 0])


def test_after_an_error_that_was_dealt_with_other_tasks_go_on() -> None:
    """What had not run is dropped: it never runs, holds nobody up, and is on no timeline."""
    ran: list[str] = []

    def fail() -> int:
        raise MemoryError

    def act(name: str) -> Callable[[], int]:
        return lambda: ran.append(name) or 7  # type: ignore[func-returns-value]

    with Engine() as engine:
        tasks = [task("good", "disk"), task("bad", "cpu", 0), task("after", "disk", 1)]
        engine.submit(tasks, [act("good"), fail, act("after")])
        with pytest.raises(MemoryError):
            engine.drain()
        assert engine.stop(patience_s=60)
        engine.resume()
        engine.submit([task("again", "cpu", 1), task("last", "disk", 2, 3)], [act("again"), act("last")])
        engine.drain()
        assert [span.name for span in engine.timeline().spans] == ["good", "again", "last"]
        assert engine.timeline().preds == ((), (), (1,))
        assert engine.moved == {"disk": 14, "cpu": 7}
    assert ran == ["good", "again", "last"]


def test_tasks_that_have_ended_are_let_go_but_for_the_first_and_others_may_depend_on_them() -> None:
    with Engine(spans=2) as engine:
        for number in range(50):
            engine.submit([task(str(number), "cpu", *range(max(0, number - 3), number))], [lambda: 0])
            engine.wait([number])
        assert len(engine._runs._held) == 2
        engine.submit([task("50", "disk", 0, 10, 49)], [lambda: 5])
        engine.wait([10, 50])
        engine.drain()
        assert [span.name for span in engine.timeline().spans] == ["0", "1"]
        assert engine.moved == {"cpu": 0, "disk": 5}
