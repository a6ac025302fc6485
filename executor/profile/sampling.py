"""Samples of running times, and what they say.

Probes take turns, one sample each per round: a burst of foreign work then spoils one sample of every probe rather than
all samples of one, and a median shrugs it off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

#: seconds of one run, once per round
Samples = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to time. A sample is the mean of `repeats` runs, so that short ones outlast the clock's grain.
    `finish` waits for what `run` has only queued (a GPU's kernels)."""

    run: Callable[[], object]
    repeats: int = 1
    finish: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median of `n` samples. `spread`: their median absolute deviation, as a share of the median."""

    value: float
    n: int
    spread: float


def collect(
    probes: Mapping[Hashable, Probe],
    *,
    seconds: float,
    rounds: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = lambda what: None,
) -> dict[Hashable, Samples]:
    """Samples of every probe, by its key: at least `rounds`, and more as long as another round fits into `seconds`.

    Every sample follows an untimed run, for the other probes have just had the caches.
    """
    start = clock()
    samples: dict[Hashable, list[float]] = {key: [] for key in probes}
    done, longest = 0, 0.0
    while done < rounds or clock() - start + longest <= seconds:
        begun = clock()
        say(f"round {done + 1}")
        for key, probe in probes.items():
            samples[key].append(_sample(probe, clock))
        done, longest = done + 1, max(longest, clock() - begun)
    return {key: tuple(taken) for key, taken in samples.items()}


def _sample(probe: Probe, clock: Callable[[], float]) -> float:
    probe.run()
    probe.finish()
    start = clock()
    for _ in range(probe.repeats):
        probe.run()
    probe.finish()
    return (clock() - start) / probe.repeats


def estimate(samples: Samples) -> Estimate:
    """The median of the samples, in seconds."""
    middle = statistics.median(samples)
    return Estimate(middle, len(samples), statistics.median(abs(sample - middle) for sample in samples) / middle)
