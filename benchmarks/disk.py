"""How fast a checkpoint can be read, by the way it is read: as the executor does, and otherwise.

    python -m benchmarks.disk CHECKPOINT [--seconds 40] [--json]

Every way reads units of 64 MiB from all over the checkpoint into memory that has been written before. The ways take
turns, one unit each, so that all see the disk in the same mood; medians are printed, with the quartiles, and over the
first way, which is what a plan assumes where nothing was measured. `2 x 16.0 MiB` is two threads that read blocks of
16 MiB, past the page cache and, unless it says otherwise, into huge pages. `parts` reads the parts of the model's
own FFN as a ring is filled with them: their tensors lie where they lie. `scratch` reads a file that was written just
now, as a profile does where it finds no checkpoint. Reads past the page cache need a file system that allows them.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from executor.checkpoint.checkpoint import open_checkpoint
from executor.checkpoint.layout import Extent, Layout, Unit, direct, ffn_unit
from executor.checkpoint.read import Reader, aligned_buffer
from executor.profile.disk import disk_units, scratch_file
from executor.profile.measure import DISK_SIZES
from specsim.errors import InputError
from specsim.partition import layer_units
from specsim.units import show

UNIT = DISK_SIZES.unit_bytes
#: bytes of the next unit, read
Read = Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.disk", description="Ways to read a checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="its directory")
    parser.add_argument("--seconds", type=float, default=40.0, help="in all (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with ExitStack() as stack:
        rates = measure(ways(options.checkpoint, stack), options.seconds)
    rows = [_row(name, found) for name, found in rates.items()]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    first = rows[0]["median"]
    print(f"{options.checkpoint}, {rows[0]['n']} rounds")
    print(f"{'':32} {'median':>10} {'quartiles':>22} {'over the first':>16}")
    for row in rows:
        middle, *quartiles = (show(row[key], "bytes/s") for key in ("median", "lower", "upper"))
        print(f"{row['way']:32} {middle:>10} {' .. '.join(quartiles):>22} {row['median'] / first:>16.2f}")


def ways(checkpoint: Path, stack: ExitStack) -> dict[str, Read]:
    """Each way by its name; what they hold open closes with `stack`. Raises InputError for a checkpoint that is
    smaller than a profile's scratch file."""
    units = stack.enter_context(disk_units(checkpoint, DISK_SIZES))
    if units.source == "a scratch file":
        what = f"has less than {show(DISK_SIZES.file_bytes, 'bytes')} of weights"
        raise InputError(what, where=str(checkpoint), hint="such reads say little")
    scratch = stack.enter_context(scratch_file(checkpoint, DISK_SIZES))
    fresh = [Extent(scratch, start, UNIT, 0, UNIT) for start in range(0, DISK_SIZES.file_bytes, UNIT)]
    turns = cycle(units.extents)
    for file in {extent.file for extent in units.extents}:
        _forget(file)

    def reader(way: int = 0, **how: Any) -> Reader:
        chosen = DISK_SIZES.ways[way]
        made = Reader(queue_depth=chosen.queue_depth, block_bytes=chosen.block_bytes, **how)
        return stack.enter_context(closing(made))

    def plain(reader: Reader, buffer: Tensor, places: Iterator[Extent]) -> Read:
        return lambda: reader.read(_layout(next(places)), buffer)

    huge, ordinary = aligned_buffer(UNIT), _ordinary_pages(UNIT)
    found = {f"{way}": plain(reader(i, direct=True), huge, turns) for i, way in enumerate(DISK_SIZES.ways)}
    for i in (0, -2):
        found[f"{DISK_SIZES.ways[i]}, ordinary pages"] = plain(reader(i, direct=True), ordinary, turns)
    found["parts"] = _parts(checkpoint, reader(direct=True))
    found["scratch"] = plain(reader(direct=True), huge, cycle(fresh))
    found["page cache, dropped after"] = plain(reader(direct=False), huge, turns)
    found["memory map, not in the cache"] = lambda: _map(next(turns), huge)
    return found


def measure(reads: dict[str, Read], seconds: float) -> dict[str, list[float]]:
    """Bytes per second of each read, after one that does not count."""
    for read in reads.values():
        read()
    rates: dict[str, list[float]] = {name: [] for name in reads}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for name, read in reads.items():
            start = time.perf_counter()
            nbytes = read()
            rates[name].append(nbytes / (time.perf_counter() - start))
    return rates


def _parts(directory: Path, reader: Reader) -> Read:
    """Parts of the FFNs, layer by layer, into the slots of a ring of three."""
    checkpoint = open_checkpoint(directory)
    model = checkpoint.architecture.model
    layouts = []
    for layer in range(model.layers):
        parts = layer_units(model, model.layer_ffn(layer), UNIT).parts
        layouts += [direct(ffn_unit(checkpoint, layer, part, parts)) for part in range(parts)]
    size = max(layout.nbytes for layout in layouts)
    ring = aligned_buffer(3 * size).fill_(1)
    turns = cycle(zip(layouts, cycle(torch.split(ring, size)), strict=False))
    return lambda: reader.read(*next(turns))


def _ordinary_pages(nbytes: int) -> Tensor:
    memory = mmap.mmap(-1, nbytes)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8).fill_(1)


def _map(extent: Extent, buffer: Tensor) -> int:
    """Copy from a new map of the file. The page cache has nothing of it before, nor after."""
    with extent.file.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        buffer.numpy().data[:] = memoryview(memory)[extent.start : extent.start + extent.nbytes]
    _forget(extent.file)  # which works only once no map has it
    return extent.nbytes


def _forget(file: Path) -> None:
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _layout(extent: Extent) -> Layout:
    return Layout(Unit(()), (), extent.nbytes, (extent,))


def _row(name: str, rates: list[float]) -> dict[str, Any]:
    lower, middle, upper = statistics.quantiles(rates, n=4)
    return {"way": name, "n": len(rates), "median": middle, "lower": lower, "upper": upper}


if __name__ == "__main__":
    main()
