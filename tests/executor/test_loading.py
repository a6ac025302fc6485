"""Loading ends with what it made, its error, or a line that says that the disk hangs; and hears of an interrupt."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor.checkpoint.layout import Extent, Layout, Unit
from executor.checkpoint.read import Reader, aligned_buffer
from executor.engine import StalledError
from executor.loading import load

PAGE = 4096


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reader, Any]]:
    """A reader of a disk that hangs until the test is over, and what reads of it."""
    over = threading.Event()
    file = tmp_path / "a"
    file.write_bytes(bytes(PAGE))
    monkeypatch.setattr(os, "preadv", lambda *_: over.wait(60) and 0)
    monkeypatch.setattr("executor.engine.LEAVING_S", 0.0)
    reader = Reader()
    layout = Layout(Unit(()), (), PAGE, (Extent(file, 0, PAGE, 0, PAGE),))
    yield reader, lambda: reader.read(layout, aligned_buffer(PAGE))
    over.set()


def test_what_was_made_is_given() -> None:
    assert load(lambda: threading.current_thread().name, Reader(), 1.0) == "specsim load"


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        load(fail, Reader(), 1.0)


def test_a_disk_that_hangs_is_told(stuck: tuple[Reader, Any]) -> None:
    reader, read = stuck
    with pytest.raises(StalledError, match=r"run: loading has read nothing for 0 s: does the disk hang\?"):
        load(read, reader, 0.2)


def test_what_computes_for_long_does_not_hang() -> None:
    """Reads count, and nothing else: page-locking and packing take long on their own."""
    go_on = threading.Event()
    timer = threading.Timer(0.5, go_on.set)
    timer.start()
    assert load(lambda: go_on.wait(60), Reader(), 0.0)


def test_an_interrupt_ends_the_wait_for_a_disk_that_hangs(
    stuck: tuple[Reader, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, read = stuck

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if timeout:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(read, reader, 60.0)


def test_a_thread_that_is_ended_is_an_error_of_one_line() -> None:
    def die() -> None:
        raise SystemExit

    with pytest.raises(StalledError, match="run: the thread that loads was ended by SystemExit"):
        load(die, Reader(), 1.0)
