"""The reads of a run once more, in its order, into its ring, with nothing computed beside them.

    python -m benchmarks.peers.replay PLAN --target DIR --trace FILE

Prints one JSON line {"bytes", "seconds"} for the verify passes' reads. Where a run fetched only some of a part's
experts the trace does not say which: as many from the part's first on are read instead.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks.peers.disk import Read, reads
from executor.checkpoint.checkpoint import open_checkpoint
from executor.checkpoint.read import Reader
from executor.devices import devices_for
from executor.homes import Homes, Key
from executor.links import Link
from executor.memory import Ledger
from executor.rings import Rings
from executor.tasks.context import layer_of
from specsim.planfile import read_plan
from specsim.schedule.graph import Slot, parse


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.replay")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--trace", type=Path, required=True)
    options = parser.parse_args()
    plan, trace = read_plan(options.plan), json.loads(options.trace.read_text(encoding="utf-8"))
    machine = plan.case.machine
    reader = Reader(queue_depth=machine.disk.queue_depth, block_bytes=machine.disk.block_bytes)
    try:
        homes = Homes(open_checkpoint(options.target), plan.decision, devices_for(machine, emulate_gpu=False), reader)
        rings = Rings(homes, Link())
        rings.allocate(Ledger(machine.budgets(), {}))
        slots: list[Slot] = [("ring", i) for i in range(plan.decision.policy.ring_slots)]
        wanted = [(slots[i % len(slots)], *_unit(homes, read)) for i, read in enumerate(reads(trace))]
        began = time.perf_counter()
        total = sum(rings.read(slot, key, experts).unit.nbytes for slot, key, experts in wanted)
        seconds = time.perf_counter() - began
    finally:
        reader.close()
    print(json.dumps({"bytes": total, "seconds": seconds}))


def _unit(homes: Homes, read: Read) -> tuple[Key, list[int] | None]:
    """The unit of a read, and the experts of it, None for all."""
    name = parse(read.name)
    key = layer_of(name), None if name.op.endswith("attention") else name.part
    whole = homes.unit(key)
    if read.bytes == whole.nbytes or key[1] is None:
        return key, None
    held = sorted({role[1] for role in (piece.role for piece in whole.pieces) if isinstance(role, tuple)})
    return key, held[: max(1, round(len(held) * read.bytes / whole.nbytes))]


if __name__ == "__main__":
    main()
