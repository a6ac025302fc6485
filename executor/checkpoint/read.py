"""Reading a unit's bytes from the disk, past the page cache: RAM holds what the plan counts, and no second copy."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from executor.checkpoint.layout import BLOCK, Extent, Layout, direct
from specsim.errors import InputError
from specsim.units import MiB

_HUGE_PAGE: Final = int(2 * MiB)
#: most of a unit fits: one call, which the kernel cuts into requests and keeps the disk's queue full with
BLOCK_BYTES: Final = int(64 * MiB)
#: what one thread has of RAM beside the plan at most, in a scratch or in the page cache
_VISITING: Final = int(4 * MiB)
_DIRECT_FLAG: Final[int | None] = getattr(os, "O_DIRECT", None)  # Linux has it


def aligned_buffer(nbytes: int) -> Tensor:
    """A zeroed uint8 tensor [nbytes] of private memory that starts on a page, as reads past the page cache need.

    Once written it takes `nbytes` of RAM, rounded up to a page: in huge pages as far as whole ones fit. A request to
    the disk may name only so many pieces of memory, so that one into pages of 4 KiB stays small, and reads slow.
    """
    huge = nbytes // _HUGE_PAGE * _HUGE_PAGE
    memory = mmap.mmap(-1, max(nbytes, 1) + (_HUGE_PAGE if huge else 0), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    whole = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the mapping alive
    first = -whole.data_ptr() % _HUGE_PAGE if huge else 0
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE, first, huge)
            memory.madvise(mmap.MADV_NOHUGEPAGE, first + huge)  # the last page would take RAM beyond the buffer
    return whole[first : first + nbytes]


class Reader:
    """Reads layouts from the disk; any number of threads may at once. Files are opened once, and closed by `close`.

    Of each layout `queue_depth` blocks of `block_bytes` are read at once: the first thread is the caller's own.
    `direct`: read with O_DIRECT (True), through the page cache (False), or directly until a file system refuses, and
    from then on through the page cache (None). What went through it is dropped from it where `drop_cache`. `throttle`
    is called with the bytes of each read and when it began (by `time.perf_counter`), in the thread that read it.
    `total` bytes have been read so far, and `pending` reads are under way.
    """

    def __init__(
        self,
        direct: bool | None = None,
        drop_cache: bool = True,
        throttle: Callable[[int, float], None] | None = None,
        *,
        queue_depth: int = 1,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        if direct and _DIRECT_FLAG is None:
            raise InputError("this system has no O_DIRECT", hint="read through the page cache")
        self.drop_cache, self.throttle = drop_cache, throttle
        self.queue_depth, self.block_bytes = queue_depth, max(block_bytes // BLOCK, 1) * BLOCK
        self._direct = direct is not False and _DIRECT_FLAG is not None
        self._may_fall_back = direct is None
        self._descriptors: dict[tuple[Path, bool], int] = {}
        self._lock = threading.Lock()  # guards them, and the total
        self.total = self.pending = 0

    def read(self, layout: Layout, buffer: Tensor) -> int:
        """Fill `buffer` with the extents of a `direct` layout; returns the bytes that came from the disk.

        `buffer` is 1-D uint8 on the CPU, at least `layout.nbytes`, and starts at a multiple of 4096. Raises InputError
        with the file and the byte where the disk fails or the file has become too short for the layout's pieces.
        """
        if buffer.data_ptr() % BLOCK:
            raise ValueError("the buffer does not start at a multiple of 4096: use aligned_buffer")
        blocks = deque(block for extent in layout.extents for block in _cut(extent, self.block_bytes))
        return self._read_all(blocks, buffer.numpy().data)

    def read_pieces(self, layout: Layout, buffer: Tensor) -> int:
        """Fill `buffer`, 1-D uint8 on the CPU, with each piece of any layout at its place, by way of a scratch of at
        most 4 MiB. Returns and raises as `read` does."""
        extents = direct(layout.unit).extents
        scratch = aligned_buffer(min(_VISITING, max((extent.nbytes for extent in extents), default=0)))
        memory, total = scratch.numpy().data, 0
        for window in (window for extent in extents for window in _cut(extent, _VISITING)):
            total += self._read_all(deque(_cut(replace(window, at=0), self.block_bytes)), memory)
            _place(layout, buffer, window, scratch)
        return total

    def close(self) -> None:
        """Close the files, once nobody reads any more."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _read_all(self, blocks: deque[Extent], memory: memoryview) -> int:
        """Read every block to its place in `memory`, as many at once as the queue is deep. When this returns or raises,
        no thread writes there any more."""
        totals: list[int] = []
        errors: list[BaseException] = []

        def drain() -> None:
            total = 0
            try:
                while (block := _next(blocks)) is not None:
                    total += self._read(block, memory[block.at : block.at + block.nbytes])
            except BaseException as error:
                blocks.clear()  # the others stop too
                errors.append(error)
            totals.append(total)

        # They end with the read, which takes far longer than starting them; and a disk that hangs hangs no exit.
        helpers = [threading.Thread(target=drain, name="read", daemon=True) for _ in range(self.queue_depth - 1)]
        begun = []
        try:
            with suppress(RuntimeError):  # no more threads to be had: fewer read, and all is read
                for helper in helpers[: len(blocks) - 1]:
                    helper.start()
                    begun.append(helper)
            drain()
        finally:
            blocks.clear()
            for helper in begun:
                helper.join()
        if errors:
            raise errors[0]
        return sum(totals)

    def _read(self, block: Extent, memory: memoryview) -> int:
        done = total = 0
        while done < block.used:
            offset = block.start + done
            count, direct = self._read_once(block.file, offset, memory[done:])
            total += count
            # A direct read can only go on at a block: where one stopped inside a block, that block is read again.
            advance = count if not direct or done + count >= block.used else count // BLOCK * BLOCK
            if not advance:
                ends = os.stat(block.file).st_size
                needed = f"it ends at byte {ends}, and its weights at {block.start + block.used} or later"
                hint = "was it replaced while in use? get the checkpoint again"
                raise InputError(f"has become too short: {needed}", where=str(block.file), hint=hint)
            done += advance
        return total

    def _read_once(self, file: Path, offset: int, memory: memoryview) -> tuple[int, bool]:
        """One read: its bytes, and whether it was direct."""
        direct = self._direct
        began = time.perf_counter()
        try:
            with self._under_way():
                descriptor = self._descriptor(file, direct)
                count = os.preadv(descriptor, [memory if direct else memory[:_VISITING]], offset)
            if not direct and self.drop_cache:
                _drop(descriptor, offset, count)
        except OSError as error:
            if direct and self._may_fall_back and error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                self._direct = False
                return self._read_once(file, offset, memory)
            raise InputError(f"cannot read it at byte {offset}: {error.strerror}", where=str(file)) from None
        if self.throttle is not None:
            self.throttle(count, began)
        with self._lock:
            self.total += count
        return count, direct

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        with self._lock:
            self.pending += 1
        try:
            yield
        finally:
            with self._lock:
                self.pending -= 1

    def _descriptor(self, file: Path, direct: bool) -> int:
        with self._lock:
            if (file, direct) not in self._descriptors:
                flags = os.O_RDONLY | os.O_CLOEXEC | ((_DIRECT_FLAG or 0) if direct else 0)
                self._descriptors[file, direct] = os.open(file, flags)
            return self._descriptors[file, direct]


def _cut(extent: Extent, nbytes: int) -> Iterator[Extent]:
    """The extent in pieces of at most `nbytes`, a multiple of BLOCK."""
    for done in range(0, extent.nbytes, nbytes):
        size, used = min(nbytes, extent.nbytes - done), min(nbytes, extent.used - done)
        yield Extent(extent.file, extent.start + done, size, extent.at + done, used)


def _next(blocks: deque[Extent]) -> Extent | None:
    try:
        return blocks.popleft()
    except IndexError:
        return None


def _place(layout: Layout, buffer: Tensor, window: Extent, scratch: Tensor) -> None:
    """Copy what `scratch` has of each piece, as the window of a file, to where the layout wants it."""
    for piece, at in zip(layout.unit.pieces, layout.offsets, strict=True):
        start = piece.span.offset
        first, end = max(start, window.start), min(start + piece.span.nbytes, window.start + window.used)
        if piece.span.file == window.file and first < end:
            buffer[at + first - start : at + end - start] = scratch[first - window.start : end - window.start]


def _drop(descriptor: int, offset: int, count: int) -> None:
    """Let the page cache forget these bytes, with the rest of their first and last page."""
    if hasattr(os, "posix_fadvise"):
        first = offset // BLOCK * BLOCK
        os.posix_fadvise(descriptor, first, offset + count - first + BLOCK, os.POSIX_FADV_DONTNEED)
