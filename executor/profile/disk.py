"""Reads a scratch file block by block, exactly as the executor reads a checkpoint."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from torch import Tensor

from executor.checkpoint.layout import BLOCK, Extent, Layout, Unit
from executor.checkpoint.read import Reader, aligned_buffer
from executor.profile.analysis import Measured, rate_fact, reached, time_fact
from executor.profile.sampling import Samples, estimate
from specsim.errors import InputError
from specsim.units import MiB, show

#: what is left free on the file system
_SPARE: Final = int(64 * MiB)
_SMALL_READS: Final = 64
_ELSEWHERE: Final = "name another directory by --disk-path"


@dataclass(frozen=True, slots=True)
class DiskSizes:
    """`file_bytes` is a multiple of `block_bytes`, which is one of 4096."""

    file_bytes: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class DiskSamples:
    """Seconds of each read of a block and of each read of 4 KiB; `direct`: past the page cache."""

    block_bytes: int
    blocks: Samples
    small: Samples
    direct: bool


@contextmanager
def scratch_file(directory: Path, sizes: DiskSizes) -> Iterator[Path]:
    """A file of random bytes in `directory`, on the disk, gone afterwards whatever happens.

    Raises InputError where the directory cannot be written, or has too little room.
    """
    try:
        free = shutil.disk_usage(directory).free
        if free < sizes.file_bytes + _SPARE:
            what = f"has {show(free, 'bytes')} free, and the scratch file takes {show(sizes.file_bytes, 'bytes')}"
            raise InputError(what, where=str(directory), hint=_ELSEWHERE)
        file = _written(directory, sizes)
    except OSError as error:
        what = f"cannot hold a scratch file: {error.strerror}"
        raise InputError(what, where=str(directory), hint=_ELSEWHERE) from None
    with file:
        yield Path(file.name)


def _written(directory: Path, sizes: DiskSizes) -> IO[bytes]:
    file = tempfile.NamedTemporaryFile(dir=directory, prefix=".specsim-profile-")  # noqa: SIM115 (the caller closes it)
    try:
        block = os.urandom(sizes.block_bytes)  # no file system compresses it
        for _ in range(sizes.file_bytes // sizes.block_bytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    except BaseException:  # Ctrl-C too
        file.close()
        raise
    return file


def disk_samples(
    file: Path, sizes: DiskSizes, *, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> DiskSamples:
    """Read all of `file` in order, at least once and again until `seconds` are over, then single blocks anywhere."""
    buffer = aligned_buffer(sizes.block_bytes)
    reader, direct = _reader(file, buffer)
    starts = range(0, sizes.file_bytes, sizes.block_bytes)

    def read(start: int, nbytes: int) -> float:
        begun = clock()
        reader.read(_layout(file, start, nbytes), buffer)
        return clock() - begun

    with closing(reader):
        if not direct:  # what writing left in the page cache goes when it is read
            for start in starts:
                read(start, sizes.block_bytes)
        blocks: list[float] = []
        begun = clock()
        while not blocks or clock() - begun < seconds:
            blocks += [read(start, sizes.block_bytes) for start in starts]
        anywhere = random.Random(0)
        places = [anywhere.randrange(sizes.file_bytes // BLOCK) * BLOCK for _ in range(_SMALL_READS)]
        return DiskSamples(sizes.block_bytes, tuple(blocks), tuple(read(at, BLOCK) for at in places), direct)


def _reader(file: Path, buffer: Tensor) -> tuple[Reader, bool]:
    """A reader that goes past the page cache where the file system lets it, and whether it does."""
    try:
        reader = Reader(direct=True)
        reader.read(_layout(file, 0, BLOCK), buffer)
    except InputError:
        return Reader(direct=False), False
    return reader, True


def _layout(file: Path, start: int, nbytes: int) -> Layout:
    """Bytes of a file as a unit without pieces."""
    return Layout(Unit(()), (), nbytes, (Extent(file, start, nbytes, 0, nbytes),))


def disk_facts(samples: DiskSamples) -> dict[str, Measured]:
    """The facts of a disk by their names in a profile, all but capacity and power."""
    way = "past the page cache" if samples.direct else "through the page cache, for the file system has no other way"
    size = show(samples.block_bytes, "bytes")
    blocks, small = estimate(samples.blocks), estimate(samples.small)
    return {
        "bandwidth": rate_fact(samples.block_bytes, blocks, f"blocks of {size} in order, {way}"),
        "efficiency": reached("the bandwidth", blocks.n),
        "latency": time_fact(small, f"4 KiB anywhere in a scratch file, {way}"),
    }
