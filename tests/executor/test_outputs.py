"""Outputs: whole lines, as they finish, in a place that has none yet."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor.outputs import Output, OutputWriter, count_outputs, write_whole
from specsim.errors import InputError

FIRST = Output("1", (5, 6, 2), "é\n", "eos")
SECOND = Output("x", (7,), None, "length")


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes meanwhile, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_every_output_is_a_line_that_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with OutputWriter(tmp_path / "new" / "out") as writer:
        assert writer.path == tmp_path / "new" / "out" / "outputs.jsonl"
        writer.write(FIRST)
        first = (
            '{"id": "1", "output_ids": [5, 6, 2], "text": "é\\n", "finish_reason": "eos", "useful_tokens": 3}\n'
        ).encode()
        assert writer.path.read_bytes() == first
        writer.write(SECOND)
    second = b'{"id": "x", "output_ids": [7], "text": null, "finish_reason": "length", "useful_tokens": 1}\n'
    assert writer.path.read_bytes() == first + second
    assert writer.written == count_outputs(tmp_path / "new" / "out") == 2


def test_a_directory_with_outputs_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with OutputWriter(tmp_path) as writer:
        writer.write(FIRST)
    with pytest.raises(InputError) as caught:
        OutputWriter(tmp_path)
    assert str(caught.value) == f"{tmp_path}/outputs.jsonl: has outputs already; choose another -o"
    assert writer.path.read_bytes() == FIRST.line()


def test_an_empty_file_of_a_run_that_came_to_nothing_is_taken(tmp_path: Path) -> None:
    (tmp_path / "outputs.jsonl").touch()
    with OutputWriter(tmp_path) as writer:
        writer.write(FIRST)
    assert count_outputs(tmp_path) == 1


@pytest.mark.parametrize(
    ("obstacle", "reason"), [("out", "File exists"), ("out/outputs.jsonl/folder", "Is a directory")]
)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, obstacle: str, reason: str) -> None:
    if obstacle == "out":
        (tmp_path / "out").touch()
    else:
        (tmp_path / obstacle).mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        OutputWriter(tmp_path / "out")
    assert str(caught.value) == f"{tmp_path}/out/outputs.jsonl: cannot be written: {reason}; choose another -o"


def test_a_disk_that_fills_up_in_a_line_keeps_the_lines_before_it(tmp_path: Path) -> None:
    with OutputWriter(tmp_path) as writer:
        writer.write(FIRST)
        with room(len(FIRST.line()) + 20), pytest.raises(InputError) as caught:
            writer.write(SECOND)
        assert writer.path.read_bytes() == FIRST.line()
        assert str(caught.value) == (
            f"{tmp_path}/outputs.jsonl: cannot be written: File too large; "
            "it keeps 1 outputs; make room, and go on with --resume"
        )
        writer.write(SECOND)  # there is room again
    assert writer.path.read_bytes() == FIRST.line() + SECOND.line()


def test_a_device_that_takes_nothing_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "outputs.jsonl").symlink_to("/dev/full")
    with OutputWriter(tmp_path) as writer, pytest.raises(InputError, match="No space left on device; it keeps 0"):
        writer.write(FIRST)


def test_what_was_cut_off_by_a_crash_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "outputs.jsonl").write_bytes(FIRST.line() + SECOND.line()[:30])
    assert count_outputs(tmp_path) == 1
    assert count_outputs(tmp_path / "none") == 0


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_whole(file, "old")
    with room(1000), pytest.raises(InputError, match=r"metrics\.json: cannot be written: File too large"):
        write_whole(file, "new " * 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert file.read_text() == "old"
    write_whole(file, json.dumps("ü", ensure_ascii=False))
    assert file.read_bytes() == '"ü"'.encode()


def test_a_disk_that_lost_lines_is_told_and_a_device_without_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(number: int) -> None:
        monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(number, os.strerror(number))))

    with OutputWriter(tmp_path) as writer:
        writer.write(FIRST)
        fails(errno.EINVAL)
        writer.sync()
        fails(errno.EIO)
        with pytest.raises(InputError, match=r"outputs\.jsonl: cannot be written: Input/output error; it keeps 1"):
            writer.sync()


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append((tmp_path / "metrics.json").exists()))
    write_whole(tmp_path / "metrics.json", "{}")
    assert synced == [False]
