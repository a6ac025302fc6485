"""How many rounds of speculation a batch takes, where it goes on until its slowest sequence has all its tokens."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from specsim.acceptance import Acceptance


@lru_cache(maxsize=4096)
def slowest_rounds(acceptance: Acceptance, gamma: int, rows: float, tokens: int) -> float:
    """Expected rounds until each of `rows` independent sequences has gained `tokens` tokens.

    A round gains k + 1 tokens, k of `gamma` candidates being accepted. With F(r) the probability that r rounds suffice
    for one sequence, found by convolving the gains of rounds, the slowest of n needs the sum over r >= 0 of
    1 - F(r)^n rounds on average.
    """
    if tokens <= 0:
        return 0.0
    survives = np.cumprod([1.0] + [acceptance.at(i) for i in range(gamma)])
    gain = survives - np.append(survives[1:], 0.0)  # P(k accepted)
    short = np.zeros(tokens)  # P(gained exactly i tokens so far), i < tokens
    short[0] = 1.0
    expected = 0.0
    while short.sum() > 1e-12:
        expected += 1.0 - max(0.0, 1.0 - short.sum()) ** rows
        after = np.zeros(tokens)
        for k, p in enumerate(gain[:tokens]):  # a round may bring more than is wanted
            after[k + 1 :] += p * short[: tokens - k - 1]
        short = after
    return float(expected)
