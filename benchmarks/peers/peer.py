"""How fast two ranks on this machine exchange rows: `torchrun --nproc-per-node 2 -m benchmarks.peers.peer` prints, as
JSON, bytes per second of a large transfer and the seconds that the smallest takes."""

from __future__ import annotations

import json
import time
from statistics import median
from typing import Final

import torch

from executor.ranks.cores import keep_to_own
from executor.ranks.world import Launch, World

SMALL: Final = 64
LARGE: Final = 8 << 20
REPEATS: Final = 50


def main() -> None:
    launch = Launch.found()
    torch.set_num_threads(keep_to_own(launch, 1))
    with World(launch) as world:
        small, large = (_one_way_s(world, size) for size in (SMALL, LARGE))
    if launch.rank == 0:
        print(json.dumps({"bytes_per_s": LARGE / (large - small), "latency_s": small}))


def _one_way_s(world: World, size: int) -> float:
    """Half of what there and back takes, the median of many."""
    rows = torch.zeros(size, dtype=torch.uint8)
    took = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        if world.rank == 0:
            world.on.send(rows)
        world.back.receive((size,), torch.uint8)
        if world.rank == 1:
            world.on.send(rows)
        took.append((time.perf_counter() - began) / 2)
    return median(took)


if __name__ == "__main__":
    main()
