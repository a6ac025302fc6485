"""How many tokens each request gains in each of its rounds: drawn once per request, whatever batch it is in.

The draws are keyed by seed, request and round, so that all plans meet the same luck, whatever their batches; a longer
draft accepts at least what a shorter one does.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from specsim.acceptance import Acceptance, sample_accepted

SEED = 2026


@lru_cache(maxsize=128)
def gains(acceptance: Acceptance | None, gamma: int, requests: int, tokens: int, seed: int = SEED) -> NDArray[np.int64]:
    """Cumulative useful tokens after each round, shape [requests, rounds]; rounds enough for all to reach `tokens`.

    A round gives the accepted candidates and one more token, cut at the request's own end.
    """
    if tokens <= 0:
        return np.zeros((requests, 0), dtype=np.int64)
    if gamma == 0 or acceptance is None:
        return np.broadcast_to(np.arange(1, tokens + 1), (requests, tokens)).copy()
    rng = np.random.default_rng(seed)
    drawn = sample_accepted(acceptance, gamma, rng, requests * tokens).reshape(requests, tokens) + 1
    total = np.minimum(np.cumsum(drawn, axis=1), tokens)
    rounds = int((total < tokens).sum(axis=1).max()) + 1
    return np.asarray(total[:, :rounds], dtype=np.int64)


def rounds_needed(acceptance: Acceptance | None, gamma: int, requests: int, tokens: int) -> NDArray[np.int64]:
    """Rounds that each request takes to gain `tokens` tokens, shape [requests]."""
    total = gains(acceptance, gamma, requests, tokens)
    return np.asarray((total < tokens).sum(axis=1) + (1 if tokens > 0 else 0), dtype=np.int64)
