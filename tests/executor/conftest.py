"""What tests of the executor share: a memory control group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory control group of its own, where this process may make one."""
    base = Path("/sys/fs/cgroup")
    top = base / "memory" if (base / "memory/cgroup.procs").exists() else base
    made = top / f"specsim-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a memory control group: {error.strerror}")
    try:
        if not any((made / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
            pytest.skip("the control groups here do not limit memory")
        yield made
    finally:
        made.rmdir()
