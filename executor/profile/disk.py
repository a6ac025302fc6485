"""Reads units of a checkpoint or a scratch file, exactly as the executor does, in every way that it could."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import cycle
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


#: a way is fast enough where it reaches this share of the fastest one's rate
_FAST_ENOUGH: Final = 0.95
_ROUNDS: Final = 3
#: units of a checkpoint, from all over it
_UNITS: Final = 32


@dataclass(frozen=True, slots=True)
class Way:
    """`queue_depth` threads that each read blocks of `block_bytes`."""

    queue_depth: int
    block_bytes: int

    def __str__(self) -> str:
        return f"{self.queue_depth} x {show(self.block_bytes, 'bytes')}"


@dataclass(frozen=True, slots=True)
class DiskSizes:
    """`file_bytes` is a multiple of `unit_bytes`, and all sizes are of 4096. `ways`: the simplest first."""

    file_bytes: int
    unit_bytes: int
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Units:
    """Where units of equal size lie; `source` says so in words."""

    source: str
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class DiskSamples:
    """Seconds of each read of a unit, by way, and of each read of 4 KiB; `direct`: past the page cache."""

    source: str
    unit_bytes: int
    units: Mapping[Way, Samples]
    small: Samples
    direct: bool


@contextmanager
def disk_units(directory: Path, sizes: DiskSizes) -> Iterator[Units]:
    """Units of the checkpoint in `directory`, or of a scratch file where there is none as large as that.

    What has just been written may be read faster than what lies there for long, so the checkpoint itself is better.
    Raises InputError as `scratch_file` does.
    """
    files = [file for file in sorted(directory.glob("*.safetensors")) if file.is_file()]
    extents = [extent for file in files for extent in _extents(file, sizes.unit_bytes)]
    if len(extents) * sizes.unit_bytes >= sizes.file_bytes:
        count = min(len(extents), _UNITS)
        yield Units("the checkpoint there", tuple(extents[i * len(extents) // count] for i in range(count)))
        return
    with scratch_file(directory, sizes) as file:
        yield Units("a scratch file", tuple(_extents(file, sizes.unit_bytes)))


def _extents(file: Path, nbytes: int) -> Iterator[Extent]:
    for start in range(0, file.stat().st_size - nbytes + 1, nbytes):
        yield Extent(file, start, nbytes, 0, nbytes)


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
        unit = os.urandom(sizes.unit_bytes)  # no file system compresses it
        for _ in range(sizes.file_bytes // sizes.unit_bytes):
            file.write(unit)
        file.flush()
        os.fsync(file.fileno())
    except BaseException:  # Ctrl-C too
        file.close()
        raise
    return file


def disk_samples(
    units: Units, sizes: DiskSizes, *, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> DiskSamples:
    """Read one unit after another, the ways taking turns: three rounds, and more until `seconds` are over. Then 4 KiB
    anywhere."""
    buffer = aligned_buffer(sizes.unit_bytes)
    direct = _direct(units.extents[0], buffer)
    samples: dict[Way, list[float]] = {way: [] for way in sizes.ways}
    with ExitStack() as stack:
        readers = {way: stack.enter_context(closing(_reader(direct, way))) for way in sizes.ways}

        def read(way: Way, extent: Extent) -> float:
            begun = clock()
            readers[way].read(_layout(extent), buffer)
            return clock() - begun

        for extent in units.extents[: 1 if direct else None]:  # the buffer gets its pages, the page cache is emptied
            read(sizes.ways[0], extent)
        turns = cycle(units.extents)
        begun = clock()
        while len(samples[sizes.ways[-1]]) < _ROUNDS or clock() - begun < seconds:
            for way in sizes.ways:
                samples[way].append(read(way, next(turns)))
        anywhere = random.Random(0)
        small = tuple(
            read(sizes.ways[0], _block_of(anywhere.choice(units.extents), anywhere)) for _ in range(_SMALL_READS)
        )
    taken = {way: tuple(seconds) for way, seconds in samples.items()}
    return DiskSamples(units.source, sizes.unit_bytes, taken, small, direct)


def _block_of(extent: Extent, anywhere: random.Random) -> Extent:
    start = extent.start + anywhere.randrange(extent.nbytes // BLOCK) * BLOCK
    return Extent(extent.file, start, BLOCK, 0, BLOCK)


def _direct(extent: Extent, buffer: Tensor) -> bool:
    """Whether the file system lets reads go past the page cache."""
    try:
        with closing(Reader(direct=True)) as reader:
            reader.read(_layout(extent), buffer)
    except InputError:
        return False
    return True


def _reader(direct: bool, way: Way) -> Reader:
    return Reader(direct, queue_depth=way.queue_depth, block_bytes=way.block_bytes)


def _layout(extent: Extent) -> Layout:
    """Bytes of a file as a unit without pieces."""
    return Layout(Unit(()), (), extent.nbytes, (extent,))


@contextmanager
def reading(units: Units, samples: DiskSamples) -> Iterator[Callable[[], object]]:
    """What reads the next unit at each call, in the way that the samples speak for."""
    buffer, turns = aligned_buffer(samples.unit_bytes), cycle(units.extents)
    with closing(_reader(samples.direct, best_way(samples))) as reader:
        yield lambda: reader.read(_layout(next(turns)), buffer)


def best_way(samples: DiskSamples) -> Way:
    """The simplest way that is nearly as fast as the fastest."""
    times = {way: estimate(taken).value for way, taken in samples.units.items()}
    return next(way for way, time in times.items() if min(times.values()) >= _FAST_ENOUGH * time)


def disk_facts(samples: DiskSamples) -> dict[str, Measured]:
    """The facts of a disk by their names in a profile, all but capacity and power: those of the best way."""
    cache = "past the page cache" if samples.direct else "through the page cache, for the file system has no other way"
    times = {way: estimate(taken) for way, taken in samples.units.items()}
    way = best_way(samples)
    time = times[way]
    rates = ", ".join(f"{way} {show(samples.unit_bytes / time.value, 'bytes/s')}" for way, time in times.items())
    chosen = f"the simplest within 5% of the fastest (threads x block): {rates}"
    size, small = show(samples.unit_bytes, "bytes"), estimate(samples.small)
    return {
        "bandwidth": rate_fact(
            samples.unit_bytes, time, f"units of {size} of {samples.source}, {way} at once, {cache}"
        ),
        "efficiency": reached("the bandwidth", time.n),
        "latency": time_fact(small, f"4 KiB anywhere in {samples.source}, {cache}"),
        "queue_depth": Measured(float(way.queue_depth), time.n, time.spread, chosen),
        "read_block": Measured(float(way.block_bytes), time.n, time.spread, chosen),
    }
