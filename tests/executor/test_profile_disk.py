"""The scratch file: read as it was written, and gone afterwards."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from executor.profile import disk
from executor.profile.disk import DiskSamples, disk_facts, disk_samples, scratch_file
from specsim.errors import InputError
from tests.executor.profile_stories import DISK


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_scratch_file_goes_whatever_happens(tmp_path: Path, error: type[BaseException]) -> None:
    def use() -> None:
        with scratch_file(tmp_path, DISK) as file:
            assert file.stat().st_size == DISK.file_bytes
            raise error

    with pytest.raises(error):
        use()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_also_when_writing_it_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(count: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk.os, "urandom", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_file(tmp_path, DISK):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_too_little_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(InputError, match=r"has 1\.00 MiB free, and the scratch file takes 256 KiB; name another"):
        scratch_file(tmp_path, DISK).__enter__()


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot hold a scratch file: No such file or directory; name another"):
        scratch_file(tmp_path / "gone", DISK).__enter__()


@pytest.mark.parametrize("refused", [False, True])
def test_every_block_is_read_once_and_again_while_there_is_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """A clock that gains 1 s at every look: a block takes 1 s, and the four of a pass 8 s beside their own looks."""
    if refused:  # as on a file system in memory
        plain = disk.Reader

        def reader(direct: bool) -> disk.Reader:
            if direct:
                raise InputError("cannot read it at byte 0: Invalid argument")
            return plain(direct=False)

        monkeypatch.setattr(disk, "Reader", reader)
    ticks = itertools.count()
    with scratch_file(tmp_path, DISK) as file:
        samples = disk_samples(file, DISK, seconds=10.0, clock=lambda: float(next(ticks)))
    assert samples.blocks == (1.0,) * 8
    assert samples.small == (1.0,) * 64
    assert not (refused and samples.direct)


def test_facts_say_whether_the_page_cache_was_passed() -> None:
    direct = disk_facts(DiskSamples(2**20, (0.5, 1.0, 1.0), (1e-4,), True))
    assert (direct["bandwidth"].value, direct["bandwidth"].n, direct["efficiency"].value) == (1.049e6, 3, 1.0)
    assert direct["bandwidth"].how == "blocks of 1.00 MiB in order, past the page cache"
    cached = disk_facts(DiskSamples(2**20, (1.0,), (1e-4,), False))
    assert "through the page cache" in cached["bandwidth"].how
    assert cached["latency"].value == 1e-4
