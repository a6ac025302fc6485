"""The cores of a machine, shared out among the ranks on it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from executor.ranks.world import Launch


def keep_to_own(launch: Launch, threads: int | None) -> int:
    """Keep this process, and the threads that it starts from here on, to its own cores, where the system can; returns
    with how many threads it is to compute."""
    if not hasattr(os, "sched_setaffinity"):
        return threads or max(1, (os.cpu_count() or 1) // launch.local_ranks)
    own, count = share_of(launch, sorted(os.sched_getaffinity(0)), threads)
    os.sched_setaffinity(0, own)
    return count


def share_of(launch: Launch, cores: Sequence[int], threads: int | None) -> tuple[list[int], int]:
    """The cores of a rank, and how many threads it computes with: an even share and as many threads, unless `threads`
    says otherwise. Where its threads have no cores of their own, all ranks share all."""
    each = len(cores) // launch.local_ranks
    count = threads or max(1, each)
    if count > each:
        return list(cores), count
    return list(cores[launch.local_rank * each :][:each]), count
