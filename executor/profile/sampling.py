"""Samples of running times, and what they say.

Probes take turns, one sample each per round: a burst of foreign work then spoils one sample of every probe rather than
all samples of one, and a median shrugs it off.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

#: seconds of one run, once per round
Samples = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to time. `finish` waits for what `run` has only queued (a GPU's kernels). With `parts` it times itself:
    `run` returns seconds by key, and has its own way to begin with what is not timed."""

    run: Callable[[], object]
    finish: Callable[[], object] = lambda: None
    parts: bool = False


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
    samples: dict[Hashable, list[float]] = defaultdict(list)
    done, longest = 0, 0.0
    while done < rounds or clock() - start + longest <= seconds:
        begun = clock()
        say(f"round {done + 1}")
        for key, probe in probes.items():
            for part, taken in _sample(key, probe, clock).items():
                samples[part].append(taken)
        done, longest = done + 1, max(longest, clock() - begun)
    return {key: tuple(taken) for key, taken in samples.items()}


def _sample(key: Hashable, probe: Probe, clock: Callable[[], float]) -> Mapping[Hashable, float]:
    if probe.parts:
        parts = probe.run()
        assert isinstance(parts, Mapping), "a probe with parts returns their seconds"
        return parts
    probe.run()
    probe.finish()
    start = clock()
    probe.run()
    probe.finish()
    return {key: clock() - start}


def estimate(samples: Samples) -> Estimate:
    """The median of the samples, in seconds."""
    middle = statistics.median(samples)
    return Estimate(middle, len(samples), statistics.median(abs(sample - middle) for sample in samples) / middle)
