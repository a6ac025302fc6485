"""How many tokens each request gains in each of its rounds: drawn once per request, whatever batch it is in.

The draws are keyed by seed, request and round, so that all plans for one workload meet the same luck, whatever their
batches; a longer draft accepts at least what a shorter one does. The luck is typical: a job ends with its slowest
request, and how many rounds that one needs differs much between seeds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from specsim.acceptance import Acceptance, sample_accepted

#: seeds to choose from, and draws to spend on that: more requests differ less from one another
SEEDS: Final = range(2026, 2026 + 32)
DRAWS: Final = 1_000_000
#: acceptance and draft length where luck is judged: the same for every plan and draft, so that a better one never meets
#: worse luck
REFERENCES: Final = ((0.5, 3), (0.7, 3), (0.7, 6), (0.85, 6))


@lru_cache(maxsize=64)
def typical_seed(requests: int, tokens: int) -> int:
    """The seed whose slowest and mean requests come nearest to what they are on average over all seeds."""
    seeds = SEEDS[: max(1, DRAWS // max(1, requests * tokens * len(REFERENCES)))]
    rounds = np.array(
        [
            [
                statistic
                for rate, gamma in REFERENCES
                for needed in [_rounds(_drawn(_constant(rate), gamma, requests, tokens, seed), tokens)]
                for statistic in (needed.max(), needed.mean())
            ]
            for seed in seeds
        ]
    )
    return seeds[int(np.abs(rounds - rounds.mean(axis=0)).sum(axis=1).argmin())]


@lru_cache(maxsize=128)
def gains(
    acceptance: Acceptance | None, gamma: int, requests: int, tokens: int, seed: int | None = None
) -> NDArray[np.int64]:
    """Cumulative useful tokens after each round, shape [requests, rounds]; rounds enough for all to reach `tokens`.

    A round gives the accepted candidates and one more token, cut at the request's own end. Without a `seed` the luck is
    typical.
    """
    if tokens <= 0:
        return np.zeros((requests, 0), dtype=np.int64)
    if gamma == 0 or acceptance is None:
        return np.broadcast_to(np.arange(1, tokens + 1), (requests, tokens)).copy()
    return _drawn(acceptance, gamma, requests, tokens, typical_seed(requests, tokens) if seed is None else seed)


def rounds_needed(
    acceptance: Acceptance | None, gamma: int, requests: int, tokens: int, seed: int | None = None
) -> NDArray[np.int64]:
    """Rounds that each request takes to gain `tokens` tokens, shape [requests]."""
    return _rounds(gains(acceptance, gamma, requests, tokens, seed), tokens)


def _drawn(acceptance: Acceptance, gamma: int, requests: int, tokens: int, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    drawn = sample_accepted(acceptance, gamma, rng, requests, tokens) + 1
    total = np.minimum(np.cumsum(drawn, axis=1), tokens)
    rounds = int((total < tokens).sum(axis=1).max()) + 1
    return np.asarray(total[:, :rounds], dtype=np.int64)


def _constant(rate: float) -> Acceptance:
    return Acceptance.constant(rate, "assumed", "where luck is judged")


def _rounds(total: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    return np.asarray((total < tokens).sum(axis=1) + (1 if tokens > 0 else 0), dtype=np.int64)
