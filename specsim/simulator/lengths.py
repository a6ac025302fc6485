"""Draft lengths that follow what is measured: how many candidates a sequence asks for in its next round.

A plan settles one draft length for all. At run time each sequence asks for fewer where its own candidates are accepted
less often than the plan took for granted. Only its own rounds count, and a table of the cost model that is made before
the run: so what is drafted for a request, and with it every random draw, is the same in any batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.decision import Decision
from specsim.schedule.round import RoundShape
from specsim.simulator.job import RoundPricer

#: judged tokens that the plan's acceptance counts for, where it does not say how much requests differ
PRIOR: Final = 8.0
#: and at most, however alike they are said to be: a plan may be wrong
MOST_PRIOR: Final = 24.0
#: standard deviations that a sequence is given the benefit of: while others of its batch draft on, stopping short saves
#: little, so it takes more than bad luck to do it
CAUTION: Final = 2.0
#: what a round counts for, once another has followed it: text changes
FADING: Final = 0.99
#: a sequence that is best left without candidates gets one in each so many rounds of its own all the same: text
#: changes, and nothing else would show it. Those who began together do it in the same rounds, as to draft for one of
#: them costs about what it costs for all
PROBING: Final = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What a sequence's rounds have shown of its draft: a function of their (proposed, accepted) pairs in order.

    `judged` candidates are those that the target had an opinion of, and `accepted` of them it took; `rounds` are all.
    """

    rounds: int = 0
    accepted: float = 0.0
    judged: float = 0.0

    def after(self, proposed: int, accepted: int) -> Seen:
        """And a round that has judged the first `accepted` of `proposed` tokens good, and the next one bad. Without
        candidates it only counts."""
        if not proposed:
            return replace(self, rounds=self.rounds + 1)
        judged = min(accepted + 1, proposed)
        return Seen(self.rounds + 1, FADING * self.accepted + accepted, FADING * self.judged + judged)


UNSEEN: Final = Seen()


@dataclass(frozen=True, slots=True)
class DraftLengths:
    """`seconds[g]` is a round in which every sequence has g candidates, g = 0 .. the plan's draft length; `acceptance`
    is the plan's, worth `prior` judged tokens."""

    seconds: tuple[float, ...]
    acceptance: Acceptance
    prior: float

    def wanted(self, seen: Seen) -> int:
        """Candidates of the next round: as many as are best, but one now and then where that is none."""
        return self.best(seen) or int(seen.rounds % PROBING == PROBING - 1)

    def best(self, seen: Seen) -> int:
        """The length that gains most tokens per second, were all sequences like the one whose rounds were seen.

        The rate is the upper end of what a Beta distribution whose prior is the plan's holds for likely; positions keep
        their ratios.
        """
        gamma = len(self.seconds) - 1
        planned = sum(self.acceptance.at(i) for i in range(gamma)) / gamma
        weight = self.prior + seen.judged
        mean = (self.prior * planned + seen.accepted) / weight
        rate = mean + CAUTION * math.sqrt(mean * (1 - mean) / (weight + 1))
        best, most = 0, 1.0  # tokens of the best
        tokens = survives = 1.0
        for length in range(1, gamma + 1):
            hazard = self.acceptance.at(length - 1) * rate / planned if planned else rate
            survives *= min(1.0, hazard)
            tokens += survives
            if tokens * self.seconds[best] > most * self.seconds[length]:
                best, most = length, tokens
        return best


@dataclass(slots=True, eq=False)
class Pace:
    """How many candidates one sequence wants in its next round, which is asked more often than rounds are seen."""

    lengths: DraftLengths
    seen: Seen = UNSEEN
    wanted: int = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = self.lengths.wanted(self.seen)

    def saw(self, proposed: int, accepted: int) -> None:
        self.seen = self.seen.after(proposed, accepted)
        self.wanted = self.lengths.wanted(self.seen)


def draft_lengths(case: Case, decision: Decision) -> DraftLengths:
    """The table of a plan that speculates: rounds in mid-job with every place taken."""
    policy, acceptance = decision.policy, case.acceptance
    assert policy.gamma, "a plan without speculation has no draft length"
    assert acceptance is not None, "a case without acceptance has no plan that speculates"
    work = case.workload
    shape = RoundShape(float(min(policy.in_flight, work.requests)), work.prompt_tokens_mean + work.output_tokens / 2)
    seconds = tuple(RoundPricer(case, shorter(decision, g)).steady(shape) for g in range(policy.gamma + 1))
    return DraftLengths(seconds, acceptance, _prior(acceptance, policy.gamma))


def shorter(decision: Decision, gamma: int) -> Decision:
    """The same plan with another draft length."""
    return msgspec.structs.replace(decision, policy=msgspec.structs.replace(decision.policy, gamma=gamma))


def _prior(acceptance: Acceptance, gamma: int) -> float:
    """Judged tokens that a Beta distribution as wide as the `spread` between requests is worth."""
    mean = sum(acceptance.at(i) for i in range(gamma)) / gamma
    if not acceptance.spread:
        return PRIOR
    return min(MOST_PRIOR, max(1.0, mean * (1 - mean) / acceptance.spread**2 - 1))
