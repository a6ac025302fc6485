"""The scratch file: read as it was written, and gone afterwards."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from executor.profile import disk
from executor.profile.disk import DiskSamples, Way, disk_facts, disk_samples, disk_units, scratch_file
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


def test_a_checkpoint_is_read_all_over_in_place_of_a_scratch_file(tmp_path: Path) -> None:
    for name, count in (("a", 30), ("b", 34)):
        (tmp_path / f"{name}.safetensors").write_bytes(bytes(count * DISK.unit_bytes + 5))
    before = set(tmp_path.iterdir())
    with disk_units(tmp_path, DISK) as units:
        assert set(tmp_path.iterdir()) == before
        assert [extent.start // DISK.unit_bytes for extent in units.extents] == [*range(0, 30, 2), *range(0, 34, 2)]
        assert "the checkpoint there" in disk_facts(disk_samples(units, DISK, seconds=0.0))["latency"].how


def test_a_checkpoint_that_is_too_small_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(bytes(DISK.file_bytes - 1))
    with disk_units(tmp_path, DISK) as units:
        assert units.source == "a scratch file"
        assert [extent.start for extent in units.extents] == [*range(0, DISK.file_bytes, DISK.unit_bytes)]


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (13.0, 3), (13.5, 4)])
@pytest.mark.parametrize("refused", [False, True])
def test_ways_take_turns_for_three_rounds_and_on_while_there_is_time(
    refused: bool, seconds: float, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that gains 1 s at every look: a unit takes 1 s, three rounds of two ways 12 s, and the look after 1 s."""
    if refused:  # as on a file system in memory
        plain = disk.Reader

        def reader(direct: bool, queue_depth: int = 1, block_bytes: int = 4096) -> disk.Reader:
            if direct:
                raise InputError("cannot read it at byte 0: Invalid argument")
            return plain(direct=False, queue_depth=queue_depth, block_bytes=block_bytes)

        monkeypatch.setattr(disk, "Reader", reader)
    ticks = itertools.count()
    with disk_units(tmp_path, DISK) as units:
        samples = disk_samples(units, DISK, seconds=seconds, clock=lambda: float(next(ticks)))
    assert samples.units == dict.fromkeys(DISK.ways, (1.0,) * rounds)
    assert samples.small == (1.0,) * 64
    assert not (refused and samples.direct)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [((1.04, 1.0, 1.0), 0), ((1.06, 1.0, 1.0), 1), ((2.0, 1.2, 1.0), 2), ((1.0, 2.0, 2.0), 0)],
)
def test_the_simplest_way_that_is_nearly_the_fastest_gives_the_facts(seconds: tuple[float, ...], chosen: int) -> None:
    ways = (Way(1, 2**26), Way(1, 2**22), Way(4, 2**22))
    units = {way: (3 * time, time, time) for way, time in zip(ways, seconds, strict=True)}
    facts = disk_facts(DiskSamples("a scratch file", 2**26, units, (1e-4,), True))
    assert facts["queue_depth"].value == ways[chosen].queue_depth
    assert facts["read_block"].value == ways[chosen].block_bytes
    assert facts["bandwidth"].value == float(f"{2**26 / seconds[chosen]:.4g}")
    assert (facts["queue_depth"].n, facts["queue_depth"].spread) == (3, 0.0)


def test_facts_say_whether_the_page_cache_was_passed_and_what_else_was_tried() -> None:
    units = {Way(1, 2**20): (0.5, 1.0, 1.0), Way(2, 2**19): (2.0,)}
    direct = disk_facts(DiskSamples("a scratch file", 2**20, units, (1e-4,), True))
    assert (direct["bandwidth"].value, direct["bandwidth"].n, direct["efficiency"].value) == (1.049e6, 3, 1.0)
    assert direct["bandwidth"].how == "units of 1.00 MiB of a scratch file, 1 x 1.00 MiB at once, past the page cache"
    tried = "1 x 1.00 MiB 1.05 MB/s, 2 x 512 KiB 524 kB/s"
    assert direct["read_block"].how == f"the simplest within 5% of the fastest (threads x block): {tried}"
    cached = disk_facts(DiskSamples("a scratch file", 2**20, units, (1e-4,), False))
    assert "through the page cache" in cached["bandwidth"].how
    assert cached["latency"].value == 1e-4
