"""Files of records: what a crash tears is dropped, whatever byte it stopped at, and all before it stays."""

from __future__ import annotations

import resource
from pathlib import Path

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
