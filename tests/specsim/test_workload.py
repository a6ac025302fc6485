"""Prompt lengths keep the published mean and maximum; mean acceptance is what is sampled."""

from __future__ import annotations

import numpy as np
import pytest

from specsim.acceptance import Acceptance, expected_tokens, sample_accepted
from specsim.errors import InputError
from specsim.simulator.progress import rounds_needed
from specsim.workload import Workload, prompt_lengths


def workload(mean: float, high: int, low: int, requests: int = 512) -> Workload:
    return Workload("w", "W", mean, high, low, 32, requests)


@pytest.mark.parametrize(
    ("mean", "high", "low"),
    [(158, 437, 53), (165, 483, 55), (503, 783, 168), (168, 1144, 56), (900, 1000, 10)],
)
def test_lengths_keep_mean_and_maximum(mean: int, high: int, low: int) -> None:
    lengths = prompt_lengths(workload(mean, high, low))
    assert lengths.shape == (512,)
    assert abs(lengths.mean() - mean) < 0.5
    assert 0.97 * high <= lengths.max() <= high
    assert lengths.min() >= low


def test_lengths_are_the_same_every_time_and_not_sorted() -> None:
    first, second = prompt_lengths(workload(158, 437, 53)), prompt_lengths(workload(158, 437, 53))
    assert first.tolist() == second.tolist()
    assert first.tolist() != sorted(first.tolist())


def test_two_requests_by_hand() -> None:
    # k = (30 - 10) / (20 - 10) - 1 = 1, so L(1/4) = 15 and L(3/4) = 25
    assert sorted(prompt_lengths(workload(20, 30, 10, requests=2)).tolist()) == [15, 25]


def test_equal_mean_and_maximum_give_constants() -> None:
    assert prompt_lengths(workload(64, 64, 64, requests=3)).tolist() == [64, 64, 64]
    assert prompt_lengths(workload(64, 64, 8, requests=3)).tolist() == [64, 64, 64]


def test_a_fractional_mean_is_kept_over_all_requests() -> None:
    assert sorted(prompt_lengths(workload(2.5, 3, 2, requests=4)).tolist()) == [2, 2, 3, 3]


def test_numbers_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match=r"^workload w: prompt tokens min, mean, max are 9, 5, 7; they must rise$"):
        workload(5, 7, 9)
    with pytest.raises(InputError, match=r"^workload w: requests is 0; give 1 or more$"):
        workload(5, 7, 3, requests=0)


def test_expected_tokens_of_a_constant_rate_is_the_closed_form() -> None:
    p = Acceptance.constant(0.8, "given", "test")
    assert expected_tokens(p, 4) == pytest.approx((1 - 0.8**5) / (1 - 0.8), rel=1e-15)
    assert expected_tokens(p, 0) == 1.0
    assert expected_tokens(Acceptance.constant(1.0, "given", "test"), 7) == 8.0
    assert expected_tokens(Acceptance.constant(0.0, "given", "test"), 7) == 1.0


def test_positions_multiply_and_the_last_goes_on() -> None:
    p = Acceptance((0.5, 0.25), "given", "test")
    assert [p.at(i) for i in range(4)] == [0.5, 0.25, 0.25, 0.25]
    assert expected_tokens(p, 3) == 1 + 0.5 + 0.125 + 0.03125


def test_samples_agree_with_the_mean() -> None:
    p, gamma, n = Acceptance((0.9, 0.7, 0.6), "given", "test"), 5, 200_000
    accepted = sample_accepted(p, gamma, np.random.default_rng(7), 1, n)[0]
    assert accepted.shape == (n,)
    assert set(accepted.tolist()) == set(range(gamma + 1))
    error = accepted.std() / n**0.5
    assert abs(accepted.mean() + 1 - expected_tokens(p, gamma)) < 4 * error
    none = np.count_nonzero(accepted == 0) / n
    assert abs(none - 0.1) < 4 * (0.1 * 0.9 / n) ** 0.5


def test_samples_at_the_ends() -> None:
    rng = np.random.default_rng(0)
    assert sample_accepted(Acceptance.constant(1.0, "given", ""), 3, rng, 2, 2).tolist() == [[3, 3], [3, 3]]
    assert sample_accepted(Acceptance.constant(0.0, "given", ""), 3, rng, 2, 2).tolist() == [[0, 0], [0, 0]]
    assert sample_accepted(Acceptance.constant(0.5, "given", ""), 0, rng, 1, 2).tolist() == [[0, 0]]


def test_probabilities_outside_0_to_1_are_refused() -> None:
    with pytest.raises(InputError, match=r"^acceptance at position 1 is 1.2; give 0 to 1$"):
        Acceptance((0.5, 1.2), "given", "test")
    with pytest.raises(InputError, match="acceptance has no positions"):
        Acceptance((), "given", "test")


def test_requests_differ_as_much_as_the_spread_says_and_agree_on_average() -> None:
    p, rounds = Acceptance((0.6,), "given", "test", spread=0.1), 4000
    rates = sample_accepted(p, 1, np.random.default_rng(3), 60, rounds).mean(axis=1)
    assert rates.mean() == pytest.approx(0.6, abs=0.01)
    assert rates.std() == pytest.approx(0.1, abs=0.01)
    with pytest.raises(InputError, match="a spread of 2"):
        Acceptance((0.6,), "given", "test", spread=2.0)


def test_the_slowest_of_requests_that_differ_needs_more_rounds() -> None:
    alike, unlike = (Acceptance((0.7,), "given", "test", spread) for spread in (0.0, 0.2))
    slowest = [int(rounds_needed(p, 4, 16, 31).max()) for p in (alike, unlike)]
    assert slowest[1] > 1.2 * slowest[0]
