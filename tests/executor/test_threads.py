"""A thread's team of OpenMP threads goes when it is told to, and comes back when it is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from executor.threads import _runtimes
from tests.conftest import Fresh

COUNT = """
import os, threading, torch
from executor.threads import dismiss_team
count = lambda: len(os.listdir("/proc/self/task"))
compute = lambda: torch.ones(512, 512) @ torch.ones(512, 512) + torch.ones(512, 512).add(1).sum()
idle = count()
first, team = compute().sum(), count()
dismiss_team()
dismissed = count()
again = compute().sum()
print(idle, team, dismissed, count(), bool(first == again))
dismiss_team()
done = threading.Thread(target=compute)
done.start()
done.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_a_team_that_is_dismissed_is_gone_until_it_is_needed_again(fresh: Fresh) -> None:
    done = fresh("-c", COUNT, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    idle, team, dismissed, again, same = done.stdout.split()
    assert (int(team), int(dismissed), int(again), same) == (int(idle) + 1, int(idle), int(idle) + 1, "True")


def test_runtimes_are_found_by_their_names(tmp_path: Path) -> None:
    maps = "7f00-7f01 r-xp 00000000 fe:00 12 {}\n"
    files = ["/a/torch/lib/libgomp-24e2ab19.so.1.0.0", "/b/libiomp5.so", "/c/libcomponent.so", "/d/libomp.so", "[heap]"]
    (tmp_path / "maps").write_text("".join(maps.format(file) for file in (*files, files[0])))
    assert _runtimes(tmp_path / "maps") == {files[0], files[1], files[3]}
    assert _runtimes(tmp_path / "none") == set()
