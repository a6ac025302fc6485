"""Every fault that is injected ends as the table of docs/faults.md says: completed, in a smaller configuration, or in
one line with what has finished kept; and what was broken off is completed, with the same tokens, by `--resume`.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from executor import engine, patience, process
from executor.checkpoint.checkpoint import open_checkpoint
from executor.decoder.numerics import EXACT
from executor.decoder.resident import generate_greedy, load_resident
from executor.devices import Devices
from executor.outputs import OutputWriter
from executor.tasks import table
from specsim.answer import Plan
from specsim.cli.main import entry
from specsim.hardware import Fact
from specsim.planfile import write_plan
from specsim.units import GiB
from tests.executor import checkpoints, faults, runs
from tests.executor.faults import FAULTS, Fault
from tests.executor.runs import World

ROOT = Path(__file__).parents[2]
REQUESTS, NEW, AT_ONCE = 5, 6, 2
#: how lines of outputs.jsonl and of the journal begin
OUTPUT, RECORD = rb'\{"id"', rb"[0-9a-f]{8} "
ALL = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    checkpoints.make("mixtral", folder / "target", seed=1)
    lines = [{"id": f"r{i}", "input_ids": [3 + i, 4, 5]} for i in range(REQUESTS)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, list[int]]:
    model = load_resident(folder / "target", EXACT)
    return {f"r{i}": generate_greedy(model, [3 + i, 4, 5], NEW) for i in range(REQUESTS)}


def planned(folder: Path, world: World = World()) -> Plan:  # noqa: B008 (a constant)
    model = open_checkpoint(folder / "target").architecture.model
    plan = runs.plan(model, world=world, gamma=2, batch=AT_ONCE, prompt=3, output=NEW, requests=REQUESTS, ring_slots=1)
    disk = replace(plan.case.machine.disk, bytes_per_s=1e9, block_bytes=4096)
    return on(plan, disk=disk)


def on(plan: Plan, **changes: Any) -> Plan:
    """The plan for a machine with changes."""
    return replace(plan, case=plan.case.on(replace(plan.case.machine, **changes)))


@dataclass
class Scene:
    """A run that a fault is injected into: by a patch, in its plan, or by an option."""

    patch: pytest.MonkeyPatch
    plan: Plan
    out: Path
    options: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)  # set at the end, so that what hangs goes on

    def after_outputs(self, count: int = AT_ONCE) -> Callable[[], bool]:
        """Whether so many outputs have been written."""
        real, written = OutputWriter.write, itertools.count(1)
        reached = threading.Event()

        def write(writer: OutputWriter, output: Any) -> None:
            real(writer, output)
            if next(written) == count:
                reached.set()

        self.patch.setattr(OutputWriter, "write", write)
        return reached.is_set

    def reads(self, fault: Callable[[], Any], when: Callable[[], bool] = lambda: True) -> None:
        """What a read does, once that is so."""
        real = os.preadv
        self.patch.setattr(os, "preadv", lambda *given: fault() if when() else real(*given))

    def tasks(self, op: str, fault: Callable[[], Any], when: Callable[[Any], bool]) -> None:
        """What a task of the target does, where that is so of its name."""
        real = table.TARGET[op]
        self.patch.setitem(table.TARGET, op, lambda c, name, task: fault() if when(name) else real(c, name, task))

    def full(self, of: str) -> None:
        """A disk that takes no more of one file, which is written beside it first."""
        real = Path.write_bytes

        def write(path: Path, content: bytes) -> int:
            if path.name.startswith(f".{of}"):
                no_space()
            return real(path, content)

        self.patch.setattr(Path, "write_bytes", write)

    def full_lines(self, begin: bytes, after: bytes, most: int) -> None:
        """A disk that takes no line that begins so, once it has taken `most` that begin as those `after` which it fills
        up."""
        real, taken = os.write, 0

        def write(file: int, data: Any) -> int:
            nonlocal taken
            first = bytes(data[:10])
            if re.match(begin, first) and taken >= most:
                no_space()
            taken += bool(re.match(after, first))
            return real(file, data)

        self.patch.setattr(os, "write", write)

    def no_threads(self, name: str) -> None:
        real = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith(name):
                raise RuntimeError("can't start new thread")
            real(thread)

        self.patch.setattr(threading.Thread, "start", start)

    def impatient(self) -> None:
        self.patch.setattr(engine, "LEAVING_S", 0.1)
        self.patch.setattr(patience, "LEAST_S", 2.0)
        self.patch.setattr(patience, "TIMES", 0.0)

    def hang(self) -> int:
        self.over.wait(60)
        return 0

    def beside(self, card: str, free: float) -> None:
        """A machine with a GPU, as torch would tell."""
        self.patch.setattr("executor.opening.devices_for", lambda *_, **__: Devices("gpu", torch.device("cuda", 0)))
        self.patch.setattr(torch.cuda, "get_device_name", lambda device: card)
        self.patch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free), int(free)))


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


no_space = raising(OSError(errno.ENOSPC, "No space left on device"))
eio = raising(OSError(errno.EIO, "Input/output error"))


def second_wave(name: Any) -> bool:
    return bool(name.phase == "prefill" and name.round >= 1)


def once(when: Callable[[Any], bool]) -> Callable[[Any], bool]:
    count = itertools.count()
    return lambda name: when(name) and next(count) == 0


def short_reads(s: Scene) -> None:
    real = os.preadv
    s.patch.setattr(os, "preadv", lambda file, buffers, at: real(file, [buffers[0][:4096]], at))


def stalled_streaming(s: Scene) -> None:
    s.impatient()
    s.reads(s.hang, s.after_outputs())


def stalled_loading(s: Scene) -> None:
    s.impatient()
    s.reads(s.hang)


def slow_disk(s: Scene) -> None:
    s.options += ["--throttle", "disk=3MB/s"]


def slow_link(s: Scene) -> None:
    s.options += ["--throttle", "link=3MB/s", "--emulate-gpu"]


def ram_gone(s: Scene) -> None:
    s.plan = on(s.plan, host=replace(s.plan.case.machine.host, process_bytes=2 * GiB))
    s.patch.setattr(process.files, "meminfo", lambda root: {"MemAvailable": 1 << 20})
    s.patch.setattr(process, "resident_bytes", lambda: 1 << 30)


def group_limit(s: Scene) -> None:
    s.plan = on(s.plan, host=replace(s.plan.case.machine.host, process_bytes=2 * GiB))
    s.patch.setattr(process.groups, "tightest", lambda root=Path("/"): (3 << 29, Path("/")))


def fewer_cores(s: Scene) -> None:
    facts = (Fact("host.cores", "4096", "measured", "once"),)
    s.plan = on(s.plan, host=replace(s.plan.case.machine.host, cores=4096), facts=facts)


def other_gpu(s: Scene) -> None:
    card = s.plan.case.machine.gpu
    assert card is not None
    facts = (Fact("gpu.vram", "24 GiB", "measured", "once"),)
    s.plan = on(s.plan, gpu=replace(card, vram_bytes=24 * GiB), facts=facts)
    s.beside("Card 9000", 1e15)


def clock_jumps(s: Scene) -> None:
    wild = random.Random(1)
    s.patch.setattr(time, "time", lambda: wild.uniform(0, 4e9))


PINNED = World(gpu=True, attention="pinned", ffn="pinned")
INJECTIONS: dict[str, Callable[[Scene], None]] = {
    "short-read": short_reads,
    "eio-loading": lambda s: s.reads(eio),
    "eio-streaming": lambda s: s.reads(eio, s.after_outputs()),
    "file-shrinks": lambda s: s.reads(lambda: 0, s.after_outputs()),
    "slow-disk": slow_disk,
    "slow-link": slow_link,
    "stalled-loading": stalled_loading,
    "stalled-streaming": stalled_streaming,
    "thread-dies": lambda s: s.tasks("ffn", raising(SystemExit()), second_wave),
    "no-helpers": lambda s: s.no_threads("read"),
    "no-threads": lambda s: s.no_threads("specsim cpu"),
    "full-outputs": lambda s: s.full_lines(OUTPUT, OUTPUT, AT_ONCE),
    "full-journal": lambda s: s.full_lines(RECORD, OUTPUT, AT_ONCE),
    "full-metrics": lambda s: s.full("metrics.json"),
    "full-trace": lambda s: s.full("trace.json"),
    "full-before": lambda s: s.patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1000)),
    "host-memory": lambda s: s.tasks("ffn", lambda: torch.empty(2**60), once(second_wave)),
    "device-memory": lambda s: s.tasks("ffn", raising(torch.OutOfMemoryError("CUDA: none")), once(second_wave)),
    "least-memory": lambda s: s.tasks("ffn", raising(MemoryError()), second_wave),
    "loading-memory": lambda s: s.reads(raising(MemoryError())),
    "ram-gone": ram_gone,
    "group-limit": group_limit,
    "fewer-cores": fewer_cores,
    "other-gpu": other_gpu,
    "vram-gone": lambda s: s.beside("gpu", 1000.0),
    "clock-jumps": clock_jumps,
}
#: by name, for those whose plan has a GPU
WORLDS = dict.fromkeys(["slow-link", "other-gpu", "vram-gone"], PINNED)
SIGNALS = ["sigint", "sigterm", "sigint-twice", "sigkill"]


@pytest.fixture
def scene(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        made = Scene(patch, planned(folder, WORLDS.get(request.param, World())), tmp_path / "out")
        yield made
        made.over.set()


def arguments(folder: Path, scene: Scene) -> list[str]:
    plan_file = scene.out.parent / "plan.yaml"
    write_plan(scene.plan, plan_file)
    models = ["--target", str(folder / "target"), "--prompts", str(folder / "prompts.jsonl")]
    return ["run", str(plan_file), *models, "-o", str(scene.out), *scene.options]


def outputs(out: Path) -> dict[str, list[int]]:
    if not (out / "outputs.jsonl").exists():
        return {}
    lines = [json.loads(line) for line in (out / "outputs.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines), "an output is there twice"
    return {line["id"]: line["output_ids"] for line in lines}


def check(fault: Fault, status: int, told: str, out: Path, expected: dict[str, list[int]]) -> None:
    """What was seen is what the table says, and what is kept too; then the run is completed."""
    shown = "\n".join(map(re.escape, fault.line.replace("OUT", str(out)).splitlines())).replace("…", ".*")
    assert re.fullmatch(shown, told.rstrip("\n")), f"{told!r} is not {fault.line!r}"
    assert status == fault.status
    found = outputs(out)
    assert found == {name: expected[name] for name in found}
    if fault.kept in ("all", "outputs"):
        assert found == expected
    if fault.kept == "begun":
        assert found == {}
    if fault.kept == "finished":
        assert AT_ONCE <= len(found) < REQUESTS
    if fault.kept == "nothing begun":
        assert not out.exists()
    elif fault.kept != "all":
        assert entry(["run", "--resume", str(out)]) == 0
        assert outputs(out) == expected
        assert (out / "metrics.json").exists()


@pytest.mark.parametrize("scene", INJECTIONS, indirect=True, ids=str)
def test_a_fault_ends_as_the_table_says(
    scene: Scene,
    request: pytest.FixtureRequest,
    folder: Path,
    expected: dict[str, list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = request.node.callspec.params["scene"]
    before = set(threading.enumerate())
    INJECTIONS[name](scene)
    status = entry(arguments(folder, scene))
    scene.patch.undo()
    scene.over.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), f"{thread.name} is left behind"
    check(ALL[name], status, capsys.readouterr().err, scene.out, expected)


#: the command, in a process of its own: once there are outputs its disk hangs, or takes so many seconds for a read
SLOWED = """
import os, sys, threading
from executor.outputs import OutputWriter
from specsim.cli.process import command
real_write, real_read, count = OutputWriter.write, os.preadv, []
def write(self, output):
    real_write(self, output)
    count.append(output)
def read(*given):
    if len(count) >= 2:
        {then}
    return real_read(*given)
OutputWriter.write, os.preadv = write, read
sys.exit(command())
"""
SLOW, HANGS, HOGS = "threading.Event().wait(0.3)", "threading.Event().wait()", "hog = b'x' * 2**31"


def begin(folder: Path, scene: Scene, then: str, *inside: str) -> subprocess.Popen[str]:
    """The run, which does something at each read once there are outputs, as a process `inside` of another command."""
    command = [*inside, sys.executable, "-c", SLOWED.format(then=then), *arguments(folder, scene)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=scene.out.parent, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("scene", SIGNALS, indirect=True, ids=str)
def test_a_signal_ends_as_the_table_says(
    scene: Scene, request: pytest.FixtureRequest, folder: Path, expected: dict[str, list[int]]
) -> None:
    name = request.node.callspec.params["scene"]
    running = begin(folder, scene, HANGS if "hangs" in ALL[name].what else SLOW)
    try:
        while len(outputs(scene.out)) < AT_ONCE and running.poll() is None:
            time.sleep(0.05)
        number = getattr(signal, name.partition("-")[0].upper())
        running.send_signal(number)
        while name == "sigint-twice" and running.poll() is None:
            time.sleep(0.05)
            running.send_signal(number)
        told = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    check(ALL[name], running.returncode, told, scene.out, expected)


@pytest.mark.parametrize("scene", ["group-kill"], indirect=True, ids=str)
def test_a_run_that_its_control_group_kills_is_completed(
    scene: Scene, group: Path, folder: Path, expected: dict[str, list[int]]
) -> None:
    limit = group / "memory.limit_in_bytes"
    (limit if limit.exists() else group / "memory.max").write_text(str(int(GiB)))
    swap = group / "memory.swap.max"
    if swap.exists():
        swap.write_text("0")
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    running = begin(folder, scene, HOGS, *enter)
    try:
        told = running.communicate(timeout=120)[1]
    finally:
        running.kill()
    check(ALL["group-kill"], running.returncode, told, scene.out, expected)


def test_every_row_of_the_table_is_injected() -> None:
    assert [fault.name for fault in FAULTS] == [*INJECTIONS, *SIGNALS, "group-kill"]


def test_the_page_has_the_table() -> None:
    text = faults.PAGE.read_text(encoding="utf-8")
    assert text == faults.page(text), "python -m tests.executor.faults"


@pytest.mark.parametrize("package", ["specsim", "executor"])
def test_intervals_are_measured_by_clocks_that_do_not_jump(package: str) -> None:
    found = [f for f in (ROOT / package).rglob("*.py") if re.search(r"\btime\.time\(|\.now\(\)\s*-", f.read_text())]
    assert found == []
