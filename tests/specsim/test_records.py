"""Files of records: what a crash tears is dropped, whatever byte it stopped at, and all before it stays."""

from __future__ import annotations

import errno
import itertools
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specsim.errors import InputError
from specsim.records import Records

SCHEMA = b'{"schema":"tests/1"}'
RECORDS = [b'{"a":1}', b"[]", b'["two", 2]']


def opened(path: Path) -> Records:
    return Records(path, SCHEMA, "test")


def known(path: Path) -> list[bytes]:
    with opened(path) as records:
        return list(records.read())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with opened(tmp_path / "journal.jsonl") as records:
        assert list(records.read()) == []
        for record in RECORDS:
            records.append(record)
        records.sync()
    return tmp_path / "journal.jsonl"


def test_a_record_is_a_line_behind_its_checksum(path: Path) -> None:
    assert path.read_bytes().splitlines() == [SCHEMA, b'561bacaf {"a":1}', b"0d4cbb29 []", b'670c2096 ["two", 2]']
    assert known(path) == RECORDS


def test_whatever_byte_a_crash_stopped_at_the_whole_records_stay_and_more_can_follow(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        expected = RECORDS[: max(0, whole[:length].count(b"\n") - 1)]
        assert known(path) == expected
        with opened(path) as records:
            assert list(records.read()) == expected
            records.append(b"more")
        assert known(path) == [*expected, b"more"]


def test_a_flipped_bit_ends_what_counts(path: Path) -> None:
    whole = path.read_bytes()
    second = whole.index(b"0d4cbb29")
    for bit in range(8 * (second + 3), 8 * (second + 12)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert known(path) == RECORDS[:1]
        assert path.read_bytes() == whole[:second]


def test_a_file_of_another_kind_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(b'{"schema":"tests/2"}\n')
    with pytest.raises(InputError, match=r"journal.jsonl: is no journal of a test, and is left as it is; give -o"):
        opened(path)
    assert path.read_bytes() == b'{"schema":"tests/2"}\n'


def test_one_process_has_it_at_a_time(path: Path) -> None:
    with opened(path), pytest.raises(InputError, match=r"journal.jsonl: another test is writing it; wait for it"):
        opened(path)
    assert known(path) == RECORDS


def test_a_disk_that_fills_up_in_a_record_keeps_those_before_it(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(path) as records:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, limits[1]))
        try:
            with pytest.raises(InputError, match=r"journal.jsonl: cannot be written: File too large; it keeps all"):
                records.append(b"much more")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        records.append(b"more")
    assert known(path) == [*RECORDS, b"more"]


def test_what_is_cleared_is_gone(path: Path) -> None:
    with opened(path) as records:
        records.clear()
        records.append(b"anew")
    assert known(path) == [b"anew"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/journal.jsonl: cannot be written: No such file or directory"):
        opened(tmp_path / "none" / "journal.jsonl")


def broken(number: int) -> Callable[..., Any]:
    def fail(*given: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_part_of_a_line_that_could_not_be_taken_back_is_gone_before_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fail, writes = os.write, broken(errno.EIO), itertools.count()
    with opened(path) as records:
        assert list(records.read()) == RECORDS
        monkeypatch.setattr("os.write", lambda file, data: fail() if next(writes) else real(file, data[:5]))
        monkeypatch.setattr("os.ftruncate", fail)
        with pytest.raises(InputError, match=r"Input/output error; it keeps all before; mend the disk and"):
            records.append(b"[3]")
        monkeypatch.undo()
        records.append(b"[3]")
        records.append(b"[4]")
    assert known(path) == [*RECORDS, b"[3]", b"[4]"]


def test_a_file_system_that_knows_no_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", broken(errno.ENOLCK))
    with pytest.raises(InputError, match="cannot be locked: No locks available; give -o a name on a local disk"):
        opened(tmp_path / "journal.jsonl")


def test_the_name_of_a_file_is_on_the_disk_with_the_first_of_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("specsim.records.sync_file", synced.append)
    with opened(tmp_path / "journal.jsonl") as records:
        records.sync()
        records.sync()
    assert synced == [tmp_path]
