"""How many drafted tokens the target accepts: acceptance by position, its mean and its samples."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from specsim.errors import InputError


@dataclass(frozen=True, slots=True)
class Acceptance:
    """`hazards[i]`: probability that position i is accepted, given that all before it were.

    Beyond the last position the last value repeats, so one value is the constant rate of the literature. Requests
    differ: theirs are normally distributed around these, with the deviation `spread`, at all positions alike.
    Raises InputError for an empty list or a probability outside 0..1.
    """

    hazards: tuple[float, ...]
    kind: str  # of the source: measured, published, assumed, given
    source: str
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise InputError(f"acceptance has a spread of {self.spread:g}", hint="give 0 to 1")
        if not self.hazards:
            raise InputError("acceptance has no positions", hint="give at least one probability")
        for position, p in enumerate(self.hazards):
            if not 0 <= p <= 1:
                raise InputError(f"acceptance at position {position} is {p:g}", hint="give 0 to 1")

    @classmethod
    def constant(cls, alpha: float, kind: str, source: str) -> Acceptance:
        return cls((float(alpha),), kind, source)

    def at(self, i: int) -> float:
        """Conditional probability of position i, counted from 0."""
        return self.hazards[min(i, len(self.hazards) - 1)]


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of a draft for a target on a kind of text; `spread` is the deviation between requests."""

    name: str
    title: str
    target: str
    draft: str
    text: str
    acceptance: Acceptance
    spread: float | None = None


def expected_tokens(acceptance: Acceptance, gamma: int) -> float:
    """Mean tokens that a round of `gamma` drafted ones yields: those accepted and the target's own one.

    The sum over k = 0..gamma of the probability that the first k are all accepted; for a constant p that is
    (1 - p^(gamma+1)) / (1 - p), and gamma + 1 at p = 1 (Leviathan et al., arXiv 2211.17192, equation 1).
    """
    total = survives = 1.0
    for i in range(gamma):
        survives *= acceptance.at(i)
        total += survives
    return total


def sample_accepted(
    acceptance: Acceptance, gamma: int, rng: np.random.Generator, requests: int, rounds: int
) -> NDArray[np.int64]:
    """Accepted tokens, 0..gamma, of independent rounds (the target's own token not counted), shape [requests, rounds].

    Where requests differ, their deviations are the quantiles of the normal distribution in random order: every job
    has its easy and its hard ones.
    """
    u = rng.random(requests * rounds).reshape(requests, rounds)
    hazards = np.array([[acceptance.at(i) for i in range(gamma)]])
    if acceptance.spread:
        quantiles = [NormalDist().inv_cdf((i + 0.5) / requests) for i in range(requests)]
        hazards = np.clip(hazards + acceptance.spread * rng.permutation(quantiles)[:, None], 0.0, 1.0)
    survives = np.cumprod(hazards, axis=1)  # P(at least i + 1 accepted), by request or of all
    # inverse transform: one draw a round, accepted = how many of survives exceed it
    accepted: NDArray[np.int64] = (survives[:, None, :] > u[:, :, None]).sum(axis=2, dtype=np.int64)
    return accepted
