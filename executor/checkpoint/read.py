"""Reading a unit's bytes from the disk, past the page cache: RAM holds what the plan counts, and no second copy."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from executor.checkpoint.layout import BLOCK, Layout
from specsim.errors import InputError
from specsim.units import MiB

_CHUNK: Final = int(8 * MiB)
_DIRECT_FLAG: Final[int | None] = getattr(os, "O_DIRECT", None)  # Linux has it


def aligned_buffer(nbytes: int) -> Tensor:
    """A zeroed uint8 tensor of private memory that starts on a page, as reads past the page cache need."""
    memory = mmap.mmap(-1, max(nbytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=torch.uint8)[:nbytes]  # keeps the mapping alive


class Reader:
    """Reads layouts from the disk; any number of threads may at once. Files are opened once, and closed by `close`.

    `direct`: read with O_DIRECT (True), through the page cache (False), or directly until a file system refuses, and
    from then on through the page cache (None). What went through it is dropped from it where `drop_cache`. `throttle`
    is called with the bytes of each chunk and when its read began (by `time.perf_counter`), in the thread that read it.
    """

    def __init__(
        self, direct: bool | None = None, drop_cache: bool = True, throttle: Callable[[int, float], None] | None = None
    ) -> None:
        self.drop_cache, self.throttle = drop_cache, throttle
        self._direct = direct is not False and _DIRECT_FLAG is not None
        self._may_fall_back = direct is None
        if direct and _DIRECT_FLAG is None:
            raise InputError("this system has no O_DIRECT", hint="read through the page cache")
        self._descriptors: dict[tuple[Path, bool], int] = {}
        self._lock = threading.Lock()

    def read(self, layout: Layout, buffer: Tensor) -> int:
        """Fill `buffer` with the extents of a `direct` layout; returns the bytes that came from the disk.

        `buffer` is 1-D uint8 on the CPU, at least `layout.nbytes`, and starts at a multiple of 4096. Raises InputError
        with the file and the byte where the disk fails or the file has become too short for the layout's pieces.
        """
        if buffer.data_ptr() % BLOCK:
            raise ValueError("the buffer does not start at a multiple of 4096: use aligned_buffer")
        memory = buffer.numpy().data
        return sum(self._read(e.file, e.start, memory[e.at : e.at + e.nbytes], e.used, True) for e in layout.extents)

    def read_pieces(self, layout: Layout, buffer: Tensor) -> int:
        """Fill `buffer`, 1-D uint8 on the CPU, with each piece of any layout at its place, through the page cache.
        Returns and raises as `read` does."""
        memory = buffer.numpy().data
        return sum(
            self._read(p.span.file, p.span.offset, memory[at : at + p.span.nbytes], p.span.nbytes, False)
            for p, at in zip(layout.unit.pieces, layout.offsets, strict=True)
        )

    def close(self) -> None:
        """Close the files, once no thread reads any more."""
        with self._lock:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()

    def _read(self, file: Path, start: int, memory: memoryview, used: int, aligned: bool) -> int:
        """Fill `memory` from byte `start` of a file, which may end after `used` bytes of that."""
        done = total = 0
        while done < used:
            count, direct = self._read_chunk(file, start + done, memory[done : done + _CHUNK], aligned)
            total += count
            # A direct read can only go on at a block: where one stopped inside a block, that block is read again.
            advance = count if not direct or done + count >= used else count // BLOCK * BLOCK
            if not advance:
                needed = f"it ends at byte {start + done + count}, and its weights at {start + used} or later"
                hint = "was it replaced while in use? get the checkpoint again"
                raise InputError(f"has become too short: {needed}", where=str(file), hint=hint)
            done += advance
        return total

    def _read_chunk(self, file: Path, offset: int, memory: memoryview, aligned: bool) -> tuple[int, bool]:
        """One read: its bytes, and whether it was direct."""
        direct = aligned and self._direct
        began = time.perf_counter()
        try:
            descriptor = self._descriptor(file, direct)
            count = os.preadv(descriptor, [memory], offset)
            if not direct and self.drop_cache:
                _drop(descriptor, offset, count)
        except OSError as error:
            if direct and self._may_fall_back and error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                self._direct = False
                return self._read_chunk(file, offset, memory, aligned)
            raise InputError(f"cannot read it at byte {offset}: {error.strerror}", where=str(file)) from None
        if self.throttle is not None:
            self.throttle(count, began)
        return count, direct

    def _descriptor(self, file: Path, direct: bool) -> int:
        with self._lock:
            if (file, direct) not in self._descriptors:
                flags = os.O_RDONLY | os.O_CLOEXEC | ((_DIRECT_FLAG or 0) if direct else 0)
                self._descriptors[file, direct] = os.open(file, flags)
            return self._descriptors[file, direct]


def _drop(descriptor: int, offset: int, count: int) -> None:
    """Let the page cache forget these bytes, with the rest of their first and last page."""
    if hasattr(os, "posix_fadvise"):
        first = offset // BLOCK * BLOCK
        os.posix_fadvise(descriptor, first, offset + count - first + BLOCK, os.POSIX_FADV_DONTNEED)
