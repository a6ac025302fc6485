"""Reading gives the file's bytes whichever way the disk is read, and what goes wrong names the file and the byte."""

from __future__ import annotations

import errno
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from executor.checkpoint.layout import BLOCK, Extent, Layout, Piece, Span, Unit, direct, packed
from executor.checkpoint.read import Reader, aligned_buffer
from executor.links import Pacer
from specsim.errors import InputError

PAGE = 4096
MIB = 2**20
Preadv = Callable[[int, list[memoryview], int], int]

needs_direct = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no O_DIRECT")


def random_file(path: Path, nbytes: int) -> Path:
    path.write_bytes(torch.randint(256, (nbytes,), dtype=torch.uint8, generator=torch.manual_seed(0)).numpy().tobytes())
    return path


def unit_of(file: Path, *ranges: tuple[int, int]) -> Unit:
    """A unit of bytes [first, end) of a file."""
    return Unit(
        tuple(
            Piece(("gate", i), Span(file, first, end - first), torch.uint8, (end - first,))
            for i, (first, end) in enumerate(ranges)
        )
    )


def pieces(layout: Layout, buffer: Tensor) -> list[bytes]:
    sizes = [piece.span.nbytes for piece in layout.unit.pieces]
    return [buffer[at : at + n].numpy().tobytes() for at, n in zip(layout.offsets, sizes, strict=True)]


def read(reader: Reader, layout: Layout) -> tuple[int, list[bytes]]:
    buffer = aligned_buffer(layout.nbytes)
    return reader.read(layout, buffer), pieces(layout, buffer)


def test_a_buffer_is_zeroed_and_begins_at_a_page() -> None:
    buffer = aligned_buffer(5000)
    assert (buffer.shape, buffer.dtype, buffer.data_ptr() % PAGE) == ((5000,), torch.uint8, 0)
    assert not buffer.any()
    assert aligned_buffer(0).shape == (0,)


def counted(kind: str) -> int:
    """Bytes of this process's pages, as the kernel counts them."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{kind}:")).split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux counts a process's pages")
def test_a_buffer_takes_its_bytes_in_whole_pages_and_no_more() -> None:
    """Its tail neither, which in a huge page would take all of that."""
    before = counted("Anonymous")
    buffer = aligned_buffer(9 * MIB + 5000).fill_(1)
    assert buffer.nbytes <= counted("Anonymous") - before < 9 * MIB + MIB // 2  # the rest is the test's own


HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not HUGE.exists() or "[never]" in HUGE.read_text(), reason="this system has no huge pages")
def test_a_large_buffer_lies_in_huge_pages() -> None:
    """In some at least: how many there are is for the system to say."""
    before = counted("AnonHugePages")
    buffer = aligned_buffer(64 * MIB).fill_(1)
    assert 0 < counted("AnonHugePages") - before <= buffer.nbytes


@pytest.mark.parametrize("queue_depth", [1, 3])
@pytest.mark.parametrize("way", [None, False])
def test_bytes_are_the_files_to_its_very_end(way: bool | None, queue_depth: int, tmp_path: Path) -> None:
    file = random_file(tmp_path / "a", 2 * MIB + 123)  # three blocks, the last of which ends inside a page
    content = file.read_bytes()
    layout = direct(unit_of(file, (5, 77), (5000, 2 * MIB + 123)))
    reader = Reader(direct=way, queue_depth=queue_depth, block_bytes=MIB)
    assert read(reader, layout) == (2 * MIB + 123, [content[5:77], content[5000:]])
    reader.close()


@pytest.mark.parametrize("way", [None, False])
def test_pieces_are_read_to_their_place_across_the_windows_of_the_scratch(way: bool | None, tmp_path: Path) -> None:
    files = [random_file(tmp_path / name, 17 * MIB + 5) for name in "ab"]
    content = files[0].read_bytes()
    gapped, whole = unit_of(files[0], (5, 77), (9 * MIB, 17 * MIB + 5)), unit_of(files[1], (3, 17 * MIB + 5))
    layout = packed(Unit((*gapped.pieces, *whole.pieces)))
    buffer = aligned_buffer(layout.nbytes)
    reader = Reader(direct=way, queue_depth=2, block_bytes=4 * MIB)
    assert reader.read_pieces(layout, buffer) == PAGE + 8 * MIB + 5 + 17 * MIB + 5
    assert pieces(layout, buffer) == [content[5:77], content[9 * MIB :], content[3:]]
    reader.close()


def test_the_hook_hears_of_every_read(tmp_path: Path) -> None:
    reads: list[int] = []
    layout = direct(unit_of(random_file(tmp_path / "a", 17 * MIB), (0, 17 * MIB)))
    read(Reader(throttle=lambda count, began: reads.append(count), block_bytes=8 * MIB), layout)
    assert reads == [8 * MIB, 8 * MIB, MIB]


def test_as_many_blocks_are_read_at_once_as_the_queue_is_deep(tmp_path: Path) -> None:
    """A barrier that three threads must reach, twice over: with fewer the read would not end."""
    together = threading.Barrier(3, timeout=60)

    def meet(count: int, began: float) -> None:
        together.wait()

    layout = direct(unit_of(random_file(tmp_path / "a", 6 * PAGE), (0, 6 * PAGE)))
    reader = Reader(throttle=meet, queue_depth=3, block_bytes=PAGE)
    assert read(reader, layout)[0] == 6 * PAGE
    reader.close()


def test_a_queue_of_one_is_the_callers_own_thread(tmp_path: Path) -> None:
    threads: set[threading.Thread] = set()
    layout = direct(unit_of(random_file(tmp_path / "a", 3 * PAGE), (0, 3 * PAGE)))
    read(Reader(throttle=lambda count, began: threads.add(threading.current_thread()), block_bytes=PAGE), layout)
    assert threads == {threading.current_thread()}


def test_parallel_reads_are_held_to_the_rate_together(tmp_path: Path) -> None:
    """Each thread has a clock of its own, which only its sleeping moves; all blocks begin at 0."""
    clocks: dict[int, float] = defaultdict(float)

    def sleep(seconds: float) -> None:
        clocks[threading.get_ident()] += seconds

    pacer = Pacer(4.0 * PAGE, clock=lambda: clocks[threading.get_ident()], sleep=sleep)
    layout = direct(unit_of(random_file(tmp_path / "a", 8 * PAGE), (0, 8 * PAGE)))
    reader = Reader(throttle=lambda count, began: pacer(count, 0.0), queue_depth=4, block_bytes=PAGE)
    read(reader, layout)
    assert max(clocks.values()) == 2.0
    reader.close()


@pytest.mark.parametrize("caller_fails", [True, False])
def test_an_error_in_any_thread_is_the_callers_and_leaves_no_thread(
    caller_fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, caller = set(threading.enumerate()), threading.current_thread()
    really, together = os.preadv, threading.Barrier(2, timeout=60)

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        together.wait()  # both threads have a block
        if (threading.current_thread() is caller) is caller_fails:
            raise OSError(errno.EIO, "Input/output error")
        return really(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    layout = direct(unit_of(random_file(tmp_path / "a", 2 * PAGE), (0, 2 * PAGE)))
    reader = Reader(queue_depth=2, block_bytes=PAGE)
    with pytest.raises(InputError, match=r"a: cannot read it at byte (0|4096): Input/output error"):
        read(reader, layout)
    reader.close()
    assert set(threading.enumerate()) <= before


def test_threads_that_the_system_does_not_give_are_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, given = threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if given:
            raise RuntimeError("can't start new thread")
        given.append(self)
        really(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    file = random_file(tmp_path / "a", 6 * PAGE)
    reader = Reader(queue_depth=4, block_bytes=PAGE)
    assert read(reader, direct(unit_of(file, (0, 6 * PAGE)))) == (6 * PAGE, [file.read_bytes()])
    assert (len(given), reader.total) == (1, 6 * PAGE)
    reader.close()


def test_closing_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    file, hanging, go_on = tmp_path / "f", threading.Barrier(3), threading.Event()
    file.write_bytes(bytes(4 * BLOCK))

    def hang(count: int, began: float) -> None:
        if not go_on.is_set():
            hanging.wait(10)
            go_on.wait(10)

    reader = Reader(throttle=hang, queue_depth=2, block_bytes=BLOCK)
    layout = Layout(Unit(()), (), 4 * BLOCK, (Extent(file, 0, 4 * BLOCK, 0, 4 * BLOCK),))
    reading = threading.Thread(target=reader.read, args=(layout, aligned_buffer(4 * BLOCK)))
    reading.start()
    hanging.wait(10)  # the caller and its helper have read a block each
    reader.close()
    go_on.set()
    reading.join(10)
    assert not reading.is_alive()
    reader.close()


def test_threads_share_a_reader(tmp_path: Path) -> None:
    files = [random_file(tmp_path / str(i), 9 * MIB + i) for i in range(4)]
    layouts = [direct(unit_of(file, (i, 9 * MIB + i))) for i, file in enumerate(files)] * 2
    reader = Reader()
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda layout: read(reader, layout)[1], layouts))
    assert found == [[file.read_bytes()[i:]] for i, file in enumerate(files)] * 2


def test_files_are_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    really = os.open

    def open_file(file: Path, flags: int) -> int:
        opened.append(file)
        return really(file, flags)

    monkeypatch.setattr(os, "open", open_file)
    file = random_file(tmp_path / "a", PAGE)
    reader = Reader(direct=False)
    for _ in range(3):
        read(reader, direct(unit_of(file, (0, PAGE))))
    assert opened == [file]
    reader.close()
    read(reader, direct(unit_of(file, (0, PAGE))))
    assert opened == [file, file]


@needs_direct
@pytest.mark.parametrize("refused_by", ["open", "preadv"])
def test_a_file_system_without_direct_reads_is_read_through_the_cache_for_good(
    refused_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    opened: dict[int, bool] = {}
    really_open, really_preadv = os.open, os.preadv

    def open_file(file: Path, flags: int) -> int:
        asks = bool(flags & os.O_DIRECT)
        if asks:
            asked.append(True)
        if asks and refused_by == "open":
            raise OSError(errno.EINVAL, "Invalid argument")
        descriptor = really_open(file, flags & ~os.O_DIRECT)
        opened[descriptor] = asks
        return descriptor

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if opened[descriptor]:
            raise OSError(errno.EINVAL, "Invalid argument")
        return really_preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(os, "preadv", preadv)
    files = [random_file(tmp_path / name, 9 * MIB + 5) for name in "ab"]
    reader = Reader()
    for file in files:
        assert read(reader, direct(unit_of(file, (7, 9 * MIB + 5))))[1] == [file.read_bytes()[7:]]
    assert asked == [True]
    with pytest.raises(InputError, match="a: cannot read it at byte 0: Invalid argument"):
        read(Reader(direct=True), direct(unit_of(files[0], (0, PAGE))))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot drop from the page cache")
@pytest.mark.parametrize("drop", [True, False])
def test_what_went_through_the_page_cache_is_dropped(
    drop: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, nbytes, __: dropped.append((offset, nbytes)))
    layout = packed(unit_of(random_file(tmp_path / "a", 3 * PAGE), (PAGE + 5, 2 * PAGE)))
    Reader(direct=False, drop_cache=drop).read_pieces(layout, aligned_buffer(layout.nbytes))
    assert dropped == ([(PAGE, 2 * PAGE)] if drop else [])


@pytest.mark.parametrize("way", [None, False])
@pytest.mark.parametrize("left", [0, 5, PAGE, 9 * MIB + 5])
def test_a_file_that_shrank_is_named_with_its_end(left: int, way: bool | None, tmp_path: Path) -> None:
    file = random_file(tmp_path / "a", 10 * MIB)
    layout = direct(unit_of(file, (0, 10 * MIB)))
    os.truncate(file, left)
    with pytest.raises(InputError, match=rf"a: has become too short: it ends at byte {left}, .* {10 * MIB} or later"):
        read(Reader(direct=way), layout)


def test_a_disk_that_fails_is_named_with_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really: Preadv = os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if offset >= 8 * MIB:
            raise OSError(errno.EIO, "Input/output error")
        return really(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    layout = direct(unit_of(random_file(tmp_path / "a", 10 * MIB), (0, 10 * MIB)))
    with pytest.raises(InputError, match=f"a: cannot read it at byte {8 * MIB}: Input/output error"):
        read(Reader(block_bytes=8 * MIB), layout)


def test_a_read_that_stops_early_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really: Preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: really(fd, [buffers[0][: 2 * PAGE]], offset))
    file = random_file(tmp_path / "a", 7 * PAGE + 1)
    assert read(Reader(), direct(unit_of(file, (0, 7 * PAGE + 1)))) == (7 * PAGE + 1, [file.read_bytes()])


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: cannot read it at byte 0: No such file or directory"):
        read(Reader(), direct(unit_of(tmp_path / "gone", (0, 1))))


def test_a_buffer_off_the_page_is_refused(tmp_path: Path) -> None:
    layout = Layout(Unit(()), (), PAGE, (Extent(random_file(tmp_path / "a", PAGE), 0, PAGE, 0, PAGE),))
    with pytest.raises(ValueError, match="use aligned_buffer"):
        Reader().read(layout, aligned_buffer(2 * PAGE)[8:])
