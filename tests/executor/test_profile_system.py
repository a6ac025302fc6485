"""Cores and RAM as /proc and the cgroup files tell them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from executor.profile.system import busy_seconds, read_system

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 2 sockets, 8 cores of which this process may use 0 to 5, and 16 GiB."""
    cores = "".join(f"model name\t: Some CPU\nphysical id\t: {core // 4}\n\n" for core in range(8))
    put(tmp_path, "proc/cpuinfo", cores)
    put(tmp_path, "proc/meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_limits_it_is_what_is_installed_and_allowed(root: Path) -> None:
    system = read_system(root)
    assert (system.cpu, system.cores, system.sockets) == ("Some CPU", 6, 2)
    assert (system.ram_bytes, system.available_bytes) == (16 * GIB, 12 * GIB)


def test_the_tightest_cgroup_around_the_process_counts(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/slice/job\n")
    put(root, "sys/fs/cgroup/slice/memory.max", f"{4 * GIB}\n")
    put(root, "sys/fs/cgroup/slice/job/memory.max", "max\n")
    put(root, "sys/fs/cgroup/slice/job/cpu.max", "250000 100000\n")
    system = read_system(root)
    assert (system.cores, system.ram_bytes, system.available_bytes) == (3, 4 * GIB, 4 * GIB)


def test_version_1_has_other_names_and_in_a_container_only_the_top(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    system = read_system(root)
    assert (system.cores, system.ram_bytes) == (6, 2 * GIB)


def test_a_core_is_busy_with_whatever_is_not_idling_or_waiting(root: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    line = f"{tick} {tick} {tick} 99999 99999 {tick} {tick} {tick} 77 77"
    put(root, "proc/stat", f"cpu  1 1 1 1\ncpu0 {line}\ncpu5 {line}\ncpu6 {line}\n")
    assert busy_seconds(root) == 12.0
    assert busy_seconds(root / "nowhere") is None
