"""Distributions are those of transformers, draws belong to their place, and nothing improbable is ever drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from executor.speculation.draws import Purpose, uniform
from executor.speculation.sampling import Sampling, distribution, draw
from specsim.errors import InputError

ALMOST_ONE = 1 - 2.0**-53


def log(*probs: float) -> torch.Tensor:
    """One row of logits with these probabilities."""
    return torch.tensor([probs]).log().clamp_min(-1e9)


def probs(logits: torch.Tensor, **wanted: float) -> list[float]:
    return distribution(logits, Sampling(**({"temperature": 1.0} | wanted)))[0].tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [None, 1, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.2, 0.9, 1.0])
def test_the_distribution_is_that_of_transformers(temperature: float, top_k: int | None, top_p: float | None) -> None:
    logits = torch.randn(16, 50, generator=torch.Generator().manual_seed(1)) * 3
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p else []
    theirs = warpers(None, logits).softmax(dim=-1)
    ours = distribution(logits, Sampling(temperature, top_k, top_p))
    assert (ours > 0).equal(theirs > 0)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.999])
def test_top_p_keeps_the_fewest_tokens_of_a_flat_distribution_too(top_p: float) -> None:
    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(2)) * 0.1
    full = logits.double().softmax(dim=-1)
    for row, kept in zip(full, distribution(logits, Sampling(1.0, top_p=top_p)) > 0, strict=True):
        assert float(row[kept].sum()) >= top_p > float(row[kept].sum() - row[kept].min())
        assert row[kept].min() >= row[~kept].max()


def test_tokens_tied_with_the_last_one_kept_are_kept() -> None:
    tied = log(0.4, 0.2, 0.2, 0.1, 0.1)
    assert probs(tied, top_k=2) == pytest.approx([0.5, 0.25, 0.25, 0, 0])
    assert probs(tied, top_p=0.5) == pytest.approx([0.5, 0.25, 0.25, 0, 0])
    assert probs(tied, top_p=0.3) == pytest.approx([1, 0, 0, 0, 0])


def test_the_filters_apply_in_turn() -> None:
    # Top-k first: of (0.4, 0.3) the first alone is 0.57 of what is left, and reaches 0.5 as it would not of the whole.
    assert probs(log(0.4, 0.3, 0.2, 0.1), top_k=2, top_p=0.5) == [1, 0, 0, 0]
    assert probs(log(0.4, 0.3, 0.2, 0.1), top_p=0.5) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    # Temperature before both: at 1/2 the probabilities are squared.
    assert probs(log(0.4, 0.3, 0.2, 0.1), temperature=0.5) == pytest.approx([16 / 30, 9 / 30, 4 / 30, 1 / 30])


def test_the_coldest_temperature_is_greedy_and_finite() -> None:
    assert probs(torch.tensor([[3e4, -3e4, 3.1e4]]), temperature=1e-6, top_k=2, top_p=0.9) == [0, 0, 1]


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": 1e-9}, "temperature is 1e-09; use 0 for greedy decoding, or 1e-06 and more"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1; it must be above 0 and at most 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
    ],
)
def test_a_sampling_that_means_nothing_is_refused(wanted: dict[str, float], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Sampling(**wanted)  # type: ignore[arg-type]


def test_greedy_is_temperature_zero() -> None:
    assert Sampling().greedy
    assert not Sampling(temperature=1e-6).greedy


def test_a_draw_inverts_the_cumulative_distribution() -> None:
    half_and_half = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert [draw(half_and_half, u) for u in (0.0, 0.499, 0.5, ALMOST_ONE)] == [1, 1, 3, 3]
    assert [draw(7 * half_and_half, u) for u in (0.0, 0.499, 0.5, ALMOST_ONE)] == [1, 1, 3, 3]


@given(
    weights=st.lists(st.sampled_from([0.0, 1e-30, 1e-7, 0.3, 1.0]), min_size=1, max_size=8).filter(any),
    u=st.floats(0, ALMOST_ONE),
)
def test_a_token_of_probability_zero_is_never_drawn(weights: list[float], u: float) -> None:
    assert weights[draw(torch.tensor(weights), u)] > 0


def test_a_draw_depends_on_every_part_of_its_place_and_on_nothing_else() -> None:
    here = uniform(1, 2, 3, Purpose.ACCEPT)
    places = [(0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3), (1, 3, 2), (2**64 - 1, 2, 3)]
    others = [uniform(*place, Purpose.ACCEPT) for place in places]
    others += [uniform(1, 2, 3, Purpose.DRAFT), uniform(1, 2, 3, Purpose.TARGET)]
    assert len({here, *others}) == 1 + len(others)
    assert uniform(1, 2, 3, Purpose.ACCEPT) == here


def test_draws_are_the_same_in_every_version() -> None:
    """A run resumed by a later version goes on as it began."""
    golden = [0.6299085342998937, 0.1464493153210139, 0.7529948673486183]
    assert [uniform(0, 0, 0, purpose) for purpose in Purpose] == golden


def test_draws_are_uniform_and_independent_along_each_part_of_the_place() -> None:
    places = np.ndindex(40, 40, len(Purpose))
    draws = np.array([uniform(5, request, position, Purpose(purpose)) for request, position, purpose in places])
    draws = draws.reshape(40, 40, -1)
    assert 0 <= draws.min() <= draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    for axis in range(3):
        cells = np.moveaxis(draws, axis, 0)
        pairs = np.stack([cells[:-1].ravel(), cells[1:].ravel()])  # each draw with its neighbour's
        counts = np.histogram2d(*pairs, bins=4, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counts.ravel()).pvalue > 0.01
