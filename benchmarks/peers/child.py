"""A competitor in a process of its own, inside a memory control group, with a cold page cache."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.group import Root, limited


@dataclass(frozen=True, slots=True)
class Limit:
    """What a child is held to: `bytes` of memory by the kernel, or nothing where there is no `root` to do it with."""

    root: Root | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended. `lines` are the JSON lines that it printed; `read_bytes` came from storage, loading included;
    `peak_bytes` is the group's, page cache included, None outside a group."""

    lines: tuple[dict[str, Any], ...]
    status: int
    killed: bool
    seconds: float
    read_bytes: int
    peak_bytes: int | None
    stderr: str

    def result(self, what: str) -> dict[str, Any]:
        """Its last line. Raises RuntimeError with the end of its error output where it failed."""
        if self.status != 0 or not self.lines:
            how = "was killed for want of memory" if self.killed else f"ended with status {self.status}"
            raise RuntimeError(f"{what} {how}: {self.stderr.strip()[-2000:]}")
        return self.lines[-1]


def run_child(arguments: Sequence[str], limit: Limit | None, cold: Iterable[Path]) -> Outcome:
    """Run `python -m ARGUMENTS...` under `limit`, the files below `cold` dropped from the page cache first: pages that
    another process left there would be read for nothing, and not be charged."""
    for folder in cold:
        drop_cache(folder)
    with ExitStack() as stack:
        root = limit.root if limit is not None else None
        group = stack.enter_context(limited(root, limit.bytes)) if root is not None and limit is not None else None
        began, blocks = time.perf_counter(), _blocks_read()
        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=group.enter if group is not None else None,
        )
        try:
            out, err = child.communicate()
        finally:
            child.kill()  # where this process is interrupted; the group could not be removed otherwise
            child.wait()
        seconds, read = time.perf_counter() - began, (_blocks_read() - blocks) * 512
        killed, peak = (group.killed(), group.peak_bytes()) if group is not None else (False, None)
    return Outcome(tuple(_json_lines(out)), child.returncode, killed, seconds, read, peak, err)


def drop_cache(folder: Path) -> None:
    """Let the page cache forget the files of a folder, once they are on the disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def read_bytes() -> int:
    """What this process has read from storage so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


def _blocks_read() -> int:
    """Blocks of 512 bytes that the children which have ended read from storage."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock


def _json_lines(text: str) -> Iterable[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith('{"'):
            yield json.loads(line)
