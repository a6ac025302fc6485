"""A thread's team of OpenMP threads goes when it is told to, and comes back when it is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from executor.threads import _runtimes
from specsim import api
from specsim.planfile import write_plan
from specsim.units import MiB
from tests.conftest import ROOT, Fresh

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")

PREPARED = """
import os, torch
from executor.threads import dismiss_team, one_thread
count = lambda: len(os.listdir("/proc/self/task"))
compute = lambda: torch.ones(512, 512) @ torch.ones(512, 512) + torch.ones(512, 512).add(1).sum()
idle = count()
"""
COUNTED = """
first, team = compute().sum(), count()
dismiss_team()
dismissed = count()
with one_thread():
    compute()
alone = count()
again = compute().sum()
print(idle, team, dismissed, alone, count(), bool(first == again))
"""
#: the threads that a run begins with, in a process that has computed before, on as many threads as asked, or not at all
RUN = """
import sys
from pathlib import Path
from executor import run as running
from executor.job import Job
from executor.options import RunOptions
from specsim.planfile import read_plan
found = []
def stop(*_):
    found.append(min(count() for _ in range(2000)))  # who was joined may be seen for another moment
    raise KeyboardInterrupt
Job.run = stop
computed, plan, target, prompts, out = sys.argv[1:]
if computed == "computed":
    compute()
try:
    running.run(read_plan(plan), RunOptions(target=Path(target), prompts=Path(prompts), out=Path(out)))
except KeyboardInterrupt:
    print(found[0] - idle)
"""
FORKED = """
import signal
compute()
child = os.fork()
if not child:
    signal.alarm(20)
    dismiss_team()
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@LINUX
def test_a_team_that_is_dismissed_is_gone_until_it_is_needed_again(fresh: Fresh) -> None:
    done = fresh("-c", PREPARED + COUNTED, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    idle, team, dismissed, alone, again, same = done.stdout.split()
    assert [int(n) - int(idle) for n in (team, dismissed, alone, again)] == [1, 0, 0, 1]
    assert same == "True"


@LINUX
def test_a_run_begins_without_the_team_of_who_called_it(fresh: Fresh, tmp_path: Path) -> None:
    target, prompts = ROOT / "executor/demo/target", ROOT / "executor/demo/prompts.jsonl"
    work = {"prompt_tokens": 91, "output_tokens": 4, "requests": 2}
    fix = {"strategy": "serial", "gamma": 0, "batch": 2}
    plan, out = tmp_path / "plan.yaml", tmp_path / "out"
    write_plan(api.plan(host="desktop-ddr5-64g", gpu="none", ram=64 * MiB, target=target, fix=fix, **work), plan)
    threads = []
    for computed in ("computed", "not"):
        said = (computed, plan, target, prompts, out / computed)
        done = fresh("-c", PREPARED + RUN, *map(str, said), OMP_NUM_THREADS="2")
        assert done.stdout, done.stderr
        threads.append(int(done.stdout))
    assert threads[0] == threads[1]


@LINUX
def test_a_child_of_a_fork_waits_for_no_thread_that_it_has_not(fresh: Fresh) -> None:
    done = fresh("-c", PREPARED + FORKED, OMP_NUM_THREADS="2")
    assert done.stdout.split() == ["7"], done.stderr


def test_runtimes_are_found_by_their_names(tmp_path: Path) -> None:
    maps = "7f00-7f01 r-xp 00000000 fe:00 12 {}\n"
    others = "/b/libiomp5.so", "/c/libcomponent.so", "/d/libgomp-plugin-nvptx.so.1", "[heap]"
    files = ["/a b/lib/libgomp-24e2ab19.so.1.0.0", *others]
    (tmp_path / "maps").write_text("".join(maps.format(file) for file in (*files, files[0])))
    assert _runtimes(tmp_path / "maps") == {files[0]}
    assert _runtimes(tmp_path / "none") == set()
