"""How long prompts are where a batch is padded to its longest, from the mean and maximum of a data set."""

from __future__ import annotations

from specsim.workload import Workload


def longest(workload: Workload, batch: int, population: int = 0) -> float:
    """Expected longest of the first `batch` prompts out of `population` (default: the workload's requests).

    Prompt lengths are taken as a shifted exponential distribution, whose largest of n exceeds its smallest possible
    value by scale * H_n (Renyi 1953; H_n the n-th harmonic number): hence mean + scale (H_batch - 1), with the scale
    that gives the stated maximum for the whole data set.
    """
    population = max(2, population or workload.requests)
    mean, most = workload.prompt_tokens_mean, workload.prompt_tokens_max
    scale = (most - mean) / (_harmonic(population) - 1.0)
    return min(float(most), mean + scale * (_harmonic(min(batch, population)) - 1.0))


def _harmonic(n: int) -> float:
    return sum(1.0 / i for i in range(1, n + 1))
