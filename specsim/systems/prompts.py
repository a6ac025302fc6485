"""How long prompts are where a batch is padded to its longest, from the mean and maximum of a data set."""

from __future__ import annotations

import numpy as np
from scipy.special import digamma

from specsim.workload import Workload


def longest(workload: Workload, batch: float) -> float:
    """Expected longest prompt among `batch` of the workload's requests.

    Prompt lengths are taken as a shifted exponential distribution, whose largest of n exceeds its smallest possible
    value by scale * H_n (Renyi 1953; H_n the n-th harmonic number): hence mean + scale (H_batch - 1), with the scale
    at which the longest of all requests has the stated maximum.
    """
    mean, most, requests = workload.prompt_tokens_mean, workload.prompt_tokens_max, workload.requests
    if batch >= requests:
        return float(most)
    return mean + (most - mean) * (_harmonic(batch) - 1.0) / (_harmonic(requests) - 1.0)


def _harmonic(n: float) -> float:
    return float(digamma(n + 1) + np.euler_gamma)
