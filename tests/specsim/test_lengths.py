"""Draft lengths that follow what is measured: from a sequence's own rounds alone, and worth their while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pytest

from specsim.acceptance import Acceptance, expected_tokens
from specsim.simulator.lengths import FADING, MOST_PRIOR, PRIOR, PROBING, DraftLengths, Pace, Seen, draft_lengths
from tests.specsim import plans

#: seconds of a verify pass of so many candidates (a mean over sequences), and of a draft's step
Verify = Callable[[float], float]
MACHINES: dict[str, tuple[Verify, float]] = {
    "weights stream": (lambda candidates: 1 + 0.01 * candidates, 0.02),
    "in between": (lambda candidates: 1 + 0.05 * candidates, 0.05),
    "slow draft": (lambda candidates: 1 + 0.02 * candidates, 0.2),
}


def seen(*rounds: tuple[int, int]) -> Seen:
    """What these rounds have shown, (proposed, accepted) each."""
    return reduce(lambda before, one: before.after(*one), rounds, Seen())


def accepting(rate: float, spread: float = 0.0) -> Acceptance:
    return Acceptance((rate,), "assumed", "tests", spread)


@dataclass(frozen=True)
class Job:
    """64 requests for 128 tokens in waves of 32, and a plan that takes `planned` for the chance of acceptance."""

    verify: Verify
    step: float
    planned: float

    @property
    def gamma(self) -> int:
        """The best for what was planned."""
        lengths = range(1, 13)
        return max(
            lengths, key=lambda g: expected_tokens(accepting(self.planned), g) / (self.verify(g) + g * self.step)
        )

    def seconds(self, rates: np.ndarray, luck: np.ndarray, *, adaptive: bool) -> float:
        """A round drafts for as long as any of its sequences, and verifies what all have. `luck` is by request and
        position, so that either way meets the same."""
        gamma = self.gamma
        table = tuple(self.verify(g) + g * self.step for g in range(gamma + 1))
        lengths = DraftLengths(table, accepting(self.planned), PRIOR)
        clock, tokens = 0.0, luck.shape[1]
        for first in range(0, len(rates), 32):
            left = dict.fromkeys(range(first, first + 32), tokens - 1)
            paces = {i: Pace(lengths) for i in left}
            while left:
                asked = {i: min(paces[i].wanted if adaptive else gamma, left[i] - 1) for i in left}
                clock += self.verify(sum(asked.values()) / len(asked)) + max(asked.values()) * self.step
                for i, proposed in asked.items():
                    at = tokens - left[i]
                    taken = luck[i, at : at + proposed] < rates[i]
                    accepted = proposed if taken.all() else int(taken.argmin())
                    paces[i].saw(proposed, accepted)
                    left[i] -= accepted + 1
                left = {i: n for i, n in left.items() if n > 0}
        return clock

    def gain(self, true: float, spread: float = 0.0, seeds: int = 3) -> float:
        """How many times as fast as with the plan's length."""
        ratios = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            rates = np.clip(true + spread * rng.standard_normal(64), 0, 1)
            luck = rng.random((64, 128))
            ratios.append(self.seconds(rates, luck, adaptive=False) / self.seconds(rates, luck, adaptive=True))
        return float(np.mean(ratios))


@pytest.mark.parametrize("machine", MACHINES)
def test_it_costs_little_where_the_plan_is_right(machine: str) -> None:
    for planned in (0.5, 0.8):
        assert Job(*MACHINES[machine], planned).gain(planned) > 0.97
    assert Job(*MACHINES[machine], 0.7).gain(0.7, spread=0.1) > 0.97


@pytest.mark.parametrize("machine", MACHINES)
def test_it_is_faster_where_the_plan_hoped_for_too_much(machine: str) -> None:
    job = Job(*MACHINES[machine], 0.8)
    assert job.gain(0.2) > 1.1
    assert job.gain(0.5) > 1.0


def test_it_is_about_as_fast_as_plain_decoding_where_nothing_is_ever_accepted() -> None:
    """Drafting costs a fifth of a pass for each candidate: at least one in each round would cost a fifth."""
    verify, step = MACHINES["slow draft"]
    job = Job(verify, step, 0.8)
    plain = 511 * verify(0)
    assert job.seconds(np.zeros(32), np.ones((32, 512)), adaptive=True) < 1.06 * plain


def test_it_asks_for_the_plans_length_at_first_and_for_less_when_little_is_accepted() -> None:
    lengths = DraftLengths((1.0, 1.15, 1.3, 1.45, 1.6), accepting(0.8), PRIOR)
    assert lengths.best(Seen()) == 4
    assert lengths.best(seen(*[(4, 4)] * 20)) == 4  # and never more
    best = [lengths.best(seen(*[(4, 0)] * rounds)) for rounds in range(200)]
    assert best == sorted(best, reverse=True)
    assert set(best) == {4, 3, 2, 1, 0}
    assert lengths.best(seen(*[(4, 0)] * 40, *[(1, 1)] * 60)) == 4


def test_a_sequence_that_is_best_left_without_candidates_tries_one_in_every_sixteenth_round() -> None:
    """So it comes back where the text turns into something that the draft knows."""
    pace = Pace(DraftLengths((1.0, 2.0, 3.0), accepting(0.5), PRIOR))
    asked = []
    for _ in range(100):
        asked.append(pace.wanted)
        pace.saw(pace.wanted, 0)
    assert asked == ([0] * (PROBING - 1) + [1]) * (100 // PROBING) + [0] * (100 % PROBING)
    cheap = Pace(DraftLengths((1.0, 1.3, 1.6), accepting(0.5), PRIOR), seen(*[(2, 0)] * 100))
    assert cheap.lengths.best(cheap.seen) == 0
    while cheap.wanted < 2:
        cheap.saw(cheap.wanted, cheap.wanted)
    assert cheap.seen.rounds < 100 + 20 * PROBING


def test_positions_keep_the_ratios_of_the_plan() -> None:
    """The second is rarely taken: a second candidate is never worth its while, however often the first is taken."""
    lengths = DraftLengths((1.0, 1.05, 1.3), Acceptance((0.8, 0.1), "measured", "tests"), PRIOR)
    assert lengths.best(Seen()) == 1
    assert lengths.best(seen((1, 1), (1, 1), (1, 1))) == 1


def test_rounds_without_candidates_say_nothing_but_count() -> None:
    some, more = seen((4, 1), (3, 0)), seen((0, 0), (4, 1), (0, 0), (3, 0))
    assert (some.accepted, some.judged) == (more.accepted, more.judged) == (FADING, 2 * FADING + 1)
    assert (some.rounds, more.rounds) == (2, 4)


def test_the_table_is_the_cost_models_and_the_prior_as_wide_as_requests_differ() -> None:
    plan = plans.plan()
    lengths = draft_lengths(plan.case, plan.decision)
    gamma = plan.decision.policy.gamma
    assert len(lengths.seconds) == gamma + 1
    assert list(lengths.seconds) == sorted(lengths.seconds)
    assert lengths.seconds[gamma] == pytest.approx(plan.predicted.slot_s, rel=1e-6)
    assert lengths.prior == PRIOR
    assert prior(0.2) == pytest.approx(0.7 * 0.3 / 0.04 - 1)
    assert prior(0.01) == MOST_PRIOR


def prior(spread: float) -> float:
    """Of an acceptance of 0.7 with that spread."""
    known = plans.plan()
    case = type(known.case)(
        known.case.machine, known.case.target, known.case.workload, known.case.draft, accepting(0.7, spread)
    )
    return draft_lengths(case, known.decision).prior
