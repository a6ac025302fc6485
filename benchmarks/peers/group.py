"""Memory control groups: a limit that the kernel enforces, with the page cache inside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: the files of a group by version: (limit, limit with swap, peak, events)
_FILES: Final = {
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
}


@dataclass(frozen=True, slots=True)
class Root:
    """Where this system mounts its memory controller, version 1 or 2."""

    version: int
    path: Path


@dataclass(frozen=True, slots=True)
class Group:
    """A group of its own for one child."""

    version: int
    path: Path

    def enter(self) -> None:
        """Move the calling process, with what it will allocate from here on."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak_bytes(self) -> int | None:
        """The kernel's own count, page cache included; None where the kernel keeps none."""
        file = self.path / _FILES[self.version][2]
        return int(file.read_text()) if file.exists() else None

    def killed(self) -> bool:
        """Whether the kernel has ended a process of the group for want of memory."""
        lines = (self.path / _FILES[self.version][3]).read_text().splitlines()
        return any(int(value) for name, value in map(str.split, lines) if name == "oom_kill")


def find_root(mountinfo: str) -> Root | None:
    """The memory controller in the text of /proc/self/mountinfo. Version 1 is taken where both are mounted: the
    controller then is with it."""
    found: dict[int, Path] = {}
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup" and "memory" in options.split(","):
            found[1] = Path(mount.split()[4])
        elif kind == "cgroup2":
            found[2] = Path(mount.split()[4])
    version = min(found, default=None)
    return None if version is None else Root(version, found[version])


def usable_root() -> Root | None:
    """The memory controller, if this process may make groups with it."""
    with suppress(OSError):
        root = find_root(Path("/proc/self/mountinfo").read_text())
        if root is not None:
            if root.version == 2:
                (root.path / "cgroup.subtree_control").write_text("+memory")
            with limited(root, 1 << 30):
                return root
    return None


@contextmanager
def limited(root: Root, limit_bytes: int) -> Iterator[Group]:
    """A new group of `limit_bytes` without swap, removed at the end. Raises OSError where that is not allowed."""
    group = Group(root.version, root.path / f"specsim-{os.getpid()}-{time.monotonic_ns()}")
    limit, swap, _, _ = _FILES[root.version]
    group.path.mkdir()
    try:
        (group.path / limit).write_text(str(limit_bytes))
        if (group.path / swap).exists():
            (group.path / swap).write_text(str(limit_bytes if root.version == 1 else 0))
        yield group
    finally:
        _remove(group)


def _remove(group: Group) -> None:
    for _ in range(50):  # the kernel needs a moment after the last process has ended
        try:
            return group.path.rmdir()
        except OSError:
            time.sleep(0.1)
    group.path.rmdir()
