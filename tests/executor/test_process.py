"""What the process takes beside its stores, and what control groups and the machine leave it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from executor.metrics import METRICS
from executor.process import GROWTH_BYTES, check_room, peak_bytes, resident_bytes, share_bytes
from specsim import api
from specsim.errors import InputError
from specsim.here import groups
from specsim.planfile import write_plan
from specsim.units import GiB, MiB

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine of 16 GiB with 12 GiB left, and a process in a group of 2 GiB that has taken 1 GiB at most."""
    put(tmp_path, "proc/meminfo", f"MemTotal: {int(16 * GiB) // 1024} kB\nMemAvailable: {int(12 * GiB) // 1024} kB\n")
    put(tmp_path, "proc/self/cgroup", "0::/slice/job\n")
    put(tmp_path, "sys/fs/cgroup/slice/memory.max", f"{int(2 * GiB)}\n")
    put(tmp_path, "sys/fs/cgroup/slice/memory.peak", f"{int(GiB)}\n")
    put(tmp_path, "sys/fs/cgroup/slice/job/memory.max", "max\n")
    return tmp_path


def test_the_tightest_group_limits_and_tells_its_peak(root: Path) -> None:
    limit, folder = groups.tightest(root) or (0, root)
    assert (limit, folder.name, groups.memory_peak(folder)) == (2 * GiB, "slice", GiB)


def test_version_1_has_other_names_and_no_limit_is_a_huge_one(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/job\n")
    put(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n")
    assert groups.tightest(root) is None
    put(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{int(GiB)}\n")
    put(root, "sys/fs/cgroup/memory/job/memory.max_usage_in_bytes", "12345\n")
    limit, folder = groups.tightest(root) or (0, root)
    assert (limit, groups.memory_peak(folder)) == (GiB, 12345)


def test_stores_and_the_process_itself_must_fit_the_group(root: Path) -> None:
    check_room(int(1.5 * GiB), int(0.5 * GiB), root)
    with pytest.raises(InputError) as caught:
        check_room(int(1.75 * GiB), int(0.5 * GiB), root)
    assert str(caught.value) == (
        "run: needs 2.25 GiB: 1.75 GiB for the plan's stores and 512 MiB for the process itself; "
        "the memory control group allows 2.00 GiB; raise the limit, or plan again with --ram 1536MiB"
    )


def test_they_must_fit_what_the_machine_has_left(root: Path) -> None:
    put(root, "proc/self/cgroup", "")
    check_room(int(11 * GiB), int(GiB), root)
    with pytest.raises(InputError, match=r"needs 14\.0 GiB: .*; this machine has 12\.\d GiB left; end other programs"):
        check_room(int(13 * GiB), int(GiB), root)


def test_where_nothing_is_known_nothing_is_refused(tmp_path: Path) -> None:
    check_room(10**18, 0, tmp_path)


@LINUX
def test_a_process_knows_what_it_holds() -> None:
    now, most = resident_bytes(), peak_bytes()
    assert now is not None
    assert most is not None
    assert 10 * MiB < now < 100 * GiB


@LINUX
def test_a_fresh_process_and_what_grows_are_its_share() -> None:
    share = share_bytes()
    assert share is not None
    assert GROWTH_BYTES + 50 * MiB < share < 8 * GiB
    assert share % MiB == 0


@pytest.mark.slow
def test_a_run_holds_the_limit_that_its_plan_names(group: Path, tmp_path: Path) -> None:
    """Stores of four times what the process is given to grow by: what they took too much would be killed."""
    sizes = ["--hidden", "512", "--layers", "8", "--ffn", "2048", "--vocab", "4000", "--shard-size", "64MiB"]
    make = [sys.executable, "-m", "executor.pairs", "make", "-o", str(tmp_path / "pair"), "--noise", "0.02", *sizes]
    assert subprocess.run(make, capture_output=True).returncode == 0
    share, budget = share_bytes(), 256 * MiB
    assert share is not None
    target, draft = str(tmp_path / "pair/target"), str(tmp_path / "pair/draft")
    work = {"acceptance": "0.7", "requests": 16, "prompt_tokens": 64, "output_tokens": 16}
    case = api.case(target=target, draft=draft, host="desktop-ddr5-64g", ram=budget, **work)
    host = replace(case.machine.host, process_bytes=float(share))
    write_plan(api.plan(replace(case, machine=replace(case.machine, host=host))), tmp_path / "plan.yaml")
    version_1 = (group / "memory.limit_in_bytes").exists()
    (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(int(budget) + share))
    command = [sys.executable, "-m", "specsim", "run", "plan.yaml", "--limit", "16", "-o", "out"]
    command += ["--prompts", str(tmp_path / "pair/prompts.jsonl"), "--target", target, "--draft", draft]
    inside = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh", *command]
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(inside, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode != -signal.SIGKILL, "killed"
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / METRICS).read_text())
    assert told["peak_bytes"]["ram"] > 0.9 * budget
    assert told["peak_process_bytes"] > told["peak_bytes"]["ram"]
