"""How much computing and reading the disk hold each other up: both alone, then both at once, in turns."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from executor.profile.analysis import Measured
from executor.profile.sampling import Estimate, Samples, estimate

_ROUNDS: Final = 3
#: less than this is not told from noise
_NOTICEABLE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Overlap:
    """Seconds of a computation and of a read of `read_bytes`, each alone and beside the other, one sample a round."""

    read_bytes: int
    compute: Samples
    read: Samples
    compute_beside: Samples
    read_beside: Samples


def overlap_samples(
    compute: Callable[[], object],
    read: Callable[[], object],
    read_bytes: int,
    *,
    seconds: float,
    each: float = 0.25,
    clock: Callable[[], float] = time.perf_counter,
) -> Overlap:
    """Three rounds, and more until `seconds` are over. In each: the computation for `each` seconds, reads for as long,
    and the computation for twice as long while a thread reads on."""
    rounds: list[tuple[float, float, float, float]] = []
    compute()
    begun = clock()
    while len(rounds) < _ROUNDS or clock() - begun < seconds:
        alone, reads = _mean(compute, each, clock), _mean(read, each, clock)
        with _Reading(read, clock) as reading:
            beside = _mean(compute, 2 * each, clock)
        rounds.append((alone, reads, beside, reading.mean))
    return Overlap(read_bytes, *map(tuple, zip(*rounds, strict=True)))


def _mean(run: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Seconds of a run, the mean of as many as begin within `seconds`."""
    begun, count = clock(), 0
    while count == 0 or clock() - begun < seconds:
        run()
        count += 1
    return (clock() - begun) / count


class _Reading:
    """Reads in a thread from entering to leaving; `mean` is then the seconds of a read."""

    def __init__(self, read: Callable[[], object], clock: Callable[[], float]) -> None:
        self._read, self._clock = read, clock
        self._stop = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="specsim reads", daemon=True)
        self.mean = 0.0

    def __enter__(self) -> _Reading:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        begun, count = self._clock(), 0
        self._begun.set()
        while count == 0 or not self._stop.is_set():
            self._read()
            count += 1
        self.mean = (self._clock() - begun) / count


def overlap_facts(samples: Overlap) -> dict[str, Measured]:
    """The facts of a disk that say what it and the CPU take of each other; those that are noticeable."""
    slower = _ratios(samples.compute_beside, samples.compute)
    longer = _ratios(samples.read_beside, samples.read)
    taken, lost = 1 - 1 / slower.value, 1 - 1 / longer.value
    facts = {}
    if taken > _NOTICEABLE:
        rate = samples.read_bytes / estimate(samples.read_beside).value
        how = f"reading at full speed takes {taken:.1%} of the speed of layers; this would take all of it"
        facts["cpu_rate"] = Measured(float(f"{rate / taken:.4g}"), slower.n, slower.spread, how)
    if lost > _NOTICEABLE:
        how = "of the rate of reading, beside layers that are computed all the time"
        facts["lost_to_cpu"] = Measured(float(f"{lost:.3g}"), longer.n, longer.spread, how)
    return facts


def _ratios(beside: Samples, alone: Samples) -> Estimate:
    """How many times as long something takes beside something else. Both are of the same moment, whose mood they
    share; of these ratios the lower quartile, for other programs find more room beside reads, and only add."""
    ratios = tuple(b / a for b, a in zip(beside, alone, strict=True))
    usual = estimate(ratios)
    return Estimate(statistics.quantiles(ratios, n=4, method="inclusive")[0], usual.n, usual.spread)
