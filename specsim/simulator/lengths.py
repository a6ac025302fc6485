"""Draft lengths that follow what is measured: how many candidates a sequence asks for in its next round.

A plan settles one draft length for all. At run time each sequence asks for fewer where its own candidates are accepted
less often than the plan took for granted. Only its own rounds count, and a table of the cost model that is made before
the run: so what is drafted for a request, and with it every random draw, is the same in any batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class DraftLengths:
    """`seconds[g]` is a round in which every sequence has g candidates, g = 0 .. the plan's draft length; `acceptance`
    is the plan's, worth `prior` judged tokens."""

    seconds: tuple[float, ...]
    acceptance: Acceptance
    prior: float

    def best(self, accepted: float, judged: float) -> int:
        """The length that gains most tokens per second where so many of the judged tokens were accepted, were all
        sequences like this one. At least 1: of a sequence without candidates nothing would be learnt any more.

        The rate is the upper end of what a Beta distribution whose prior is the plan's holds for likely; positions keep
        their ratios.
        """
        gamma = len(self.seconds) - 1
        planned = sum(self.acceptance.at(i) for i in range(gamma)) / gamma
        mean = (self.prior * planned + accepted) / (self.prior + judged)
        rate = mean + CAUTION * math.sqrt(mean * (1 - mean) / (self.prior + judged + 1))
        best, most = 1, 0.0
        tokens = survives = 1.0
        for length in range(1, gamma + 1):
            hazard = self.acceptance.at(length - 1) * rate / planned if planned else rate
            survives *= min(1.0, hazard)
            tokens += survives
            if tokens / self.seconds[length] > most:
                best, most = length, tokens / self.seconds[length]
        return best


@dataclass(slots=True, eq=False)
class Pace:
    """What one sequence's rounds have shown: a function of their (proposed, accepted) pairs in order, and no more."""

    lengths: DraftLengths
    accepted: float = 0.0
    judged: float = 0.0

    def saw(self, proposed: int, accepted: int) -> None:
        """A round has judged the first `accepted` of `proposed` tokens good, and the next one bad. Rounds without
        candidates say nothing."""
        if proposed:
            self.accepted = FADING * self.accepted + accepted
            self.judged = FADING * self.judged + min(accepted + 1, proposed)

    @property
    def wanted(self) -> int:
        """Candidates of the next round."""
        return self.lengths.best(self.accepted, self.judged)


def pace_after(lengths: DraftLengths, rounds: Iterable[tuple[int, int]]) -> Pace:
    """That of a sequence which has had these rounds, (proposed, accepted) each."""
    pace = Pace(lengths)
    for proposed, accepted in rounds:
        pace.saw(proposed, accepted)
    return pace


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
