"""Speculation is lossless: the same tokens when greedy; when sampling, the same distribution of whole sequences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from executor.speculation.draws import Purpose, uniform
from executor.speculation.sampling import Sampling, distribution, draw
from executor.speculation.verify import (
    NonFiniteError,
    Proposal,
    Verdict,
    require_finite,
    verify,
    verify_greedy,
)

V, LENGTH, RUNS = 4, 3, 2500
PLAIN = Sampling(temperature=1.0)

Context = tuple[int, ...]
Drafter = Callable[[Context, int, int, Sampling], Proposal]  # context, gamma, request, sampling


@cache
def table(name: int) -> Tensor:
    return torch.randn(LENGTH + 4, V + 1, V, generator=torch.Generator().manual_seed(name)) * 1.5


def logits_of(name: int, context: Context) -> Tensor:
    """Made-up logits [V] that depend on the length of the context and on its last token."""
    return table(name)[min(len(context), LENGTH + 3), context[-1] if context else V]


def target(context: Context) -> Tensor:
    return logits_of(0, context)


@cache
def probs_of(name: int, context: Context, sampling: Sampling) -> Tensor:
    return distribution(logits_of(name, context)[None], sampling)[0]


def drafting(declared: int, really: int | None = None) -> Drafter:
    """A draft that declares the distributions of model `declared`; an honest one samples from them."""

    def propose(context: Context, gamma: int, request: int, sampling: Sampling) -> Proposal:
        tokens, probs = (), []
        for _ in range(gamma):
            place = context + tokens
            u = uniform(sampling.seed, request, len(place), Purpose.DRAFT)
            tokens += (draw(probs_of(declared if really is None else really, place, sampling), u),)
            probs.append(probs_of(declared, place, sampling))
        return Proposal(tokens, torch.stack(probs))

    return propose


def copying(context: Context, gamma: int, request: int, sampling: Sampling) -> Proposal:
    """A drafter without a model: a point mass that depends on the context."""
    return Proposal(tuple((sum(context) + step) % V for step in range(gamma)))


def rows(context: Context, proposal: Proposal) -> Tensor:
    """The target's logits [n + 1, V] of a verify pass."""
    return torch.stack([target(context + proposal.tokens[:n]) for n in range(len(proposal.tokens) + 1)])


def generate(propose: Drafter, gamma: int, sampling: Sampling, request: int) -> Context:
    tokens: Context = ()
    while len(tokens) < LENGTH:
        proposal = propose(tokens, gamma, request, sampling)
        tokens += verify(rows(tokens, proposal), proposal, sampling, request, len(tokens)).tokens
    return tokens[:LENGTH]


def joint(sampling: Sampling) -> dict[Context, float]:
    """The target's probability of every sequence of LENGTH tokens."""
    return {
        sequence: math.prod(float(probs_of(0, sequence[:n], sampling)[token]) for n, token in enumerate(sequence))
        for sequence in product(range(V), repeat=LENGTH)
    }


def p_value(expected: dict[Context, float], seen: Counter[Context], runs: int) -> float:
    """Of a chi-square test; sequences expected less than 5 times share a cell. An impossible sequence gives 0."""
    if any(expected[sequence] == 0 for sequence in seen):
        return 0.0
    cells = np.array([(p * runs, seen[sequence]) for sequence, p in expected.items() if p > 0])
    rare = cells[:, 0] < 5
    wanted, found = (np.vstack([cells[~rare], cells[rare].sum(axis=0)]) if rare.any() else cells).T
    return float(stats.chisquare(found, wanted * runs / wanted.sum()).pvalue)


def p_value_of(propose: Drafter, gamma: int, sampling: Sampling) -> float:
    seen = Counter(generate(propose, gamma, sampling, request) for request in range(RUNS))
    return p_value(joint(sampling), seen, RUNS)


@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(Sampling(temperature=0.6, seed=1), id="temperature"),
        pytest.param(Sampling(temperature=1.5, top_k=2, seed=2), id="top_k"),
        pytest.param(Sampling(temperature=1.2, top_p=0.8, seed=3), id="top_p"),
    ],
)
def test_sequences_are_distributed_as_the_targets(gamma: int, sampling: Sampling) -> None:
    assert p_value_of(drafting(1), gamma, sampling) > 0.01


@pytest.mark.parametrize("gamma", [1, 3])
def test_tokens_that_were_not_drawn_leave_the_targets_distribution(gamma: int) -> None:
    assert p_value_of(copying, gamma, Sampling(temperature=1.0, top_p=0.9, seed=4)) > 0.01


def test_without_proposals_the_target_is_sampled() -> None:
    assert p_value_of(lambda *_: Proposal(()), 0, PLAIN) > 0.01


def test_a_draft_that_does_not_say_what_it_drew_from_is_found_out() -> None:
    """The negative control: the same test fails for proposals drawn from another distribution than declared."""
    assert p_value_of(drafting(1, really=2), 2, PLAIN) < 1e-6


def test_a_draft_equal_to_the_target_is_always_accepted() -> None:
    for request in range(200):
        proposal = drafting(0)((), 3, request, PLAIN)
        verdict = verify(rows((), proposal), proposal, PLAIN, request, 0)
        assert (verdict.accepted, verdict.tokens[:3]) == (3, proposal.tokens)


def test_a_draft_that_shares_no_token_with_the_target_is_never_accepted_and_changes_nothing() -> None:
    logits = torch.tensor([[1.0, 2.0, -200.0, -200.0]] * 2)
    wanted = distribution(logits, PLAIN)[0].tolist()
    seen: Counter[int] = Counter()
    for request in range(RUNS):
        proposal = Proposal((2 + request % 2,), torch.tensor([[0.0, 0.0, 0.5, 0.5]]))
        verdict = verify(logits, proposal, PLAIN, request, 0)
        assert verdict.accepted == 0
        seen.update(verdict.tokens)
    assert stats.chisquare([seen[0], seen[1]], [RUNS * wanted[0], RUNS * (1 - wanted[0])]).pvalue > 0.01


def test_a_share_of_min_1_p_over_q_is_accepted() -> None:
    logits = torch.tensor([[0.1, 0.6, 0.3]]).log().repeat(2, 1)
    q = torch.tensor([[0.4, 0.4, 0.2]])
    verdicts = [verify(logits, Proposal((0,), q), PLAIN, request, 0) for request in range(RUNS)]
    accepted = sum(verdict.accepted for verdict in verdicts)
    assert stats.binomtest(accepted, RUNS, 0.1 / 0.4).pvalue > 0.01
    # The residual (p - q)+ is (0, 0.2, 0.1).
    own = Counter(verdict.tokens[0] for verdict in verdicts if not verdict.accepted)
    assert set(own) == {1, 2}
    assert stats.binomtest(own[1], own.total(), 2 / 3).pvalue > 0.01
    for token in (1, 2):  # p >= q
        assert all(verify(logits, Proposal((token,), q), PLAIN, request, 0).accepted for request in range(200))


def test_a_residual_that_rounding_has_emptied_is_the_targets_distribution() -> None:
    """q a little above p everywhere: a rejection, rare as it is, still draws a token that the target can emit."""
    logits = torch.tensor([[0.0, 0.0, -200.0]] * 2)
    proposal = Proposal((0,), distribution(logits[:1], PLAIN) * 1.5)
    verdicts = [verify(logits, proposal, PLAIN, request, 0) for request in range(50)]
    assert {verdict.tokens for verdict in verdicts if not verdict.accepted} == {(0,), (1,)}


def test_draws_follow_the_request_and_the_position_whatever_was_accepted_before() -> None:
    """A verdict is that of its parts: cutting a proposal in two at an accepted token changes nothing."""
    for request in range(50):
        proposal = drafting(1)((), 3, request, PLAIN)
        whole = verify(rows((), proposal), proposal, PLAIN, request, 0)
        if whole.accepted:
            assert proposal.probs is not None
            rest = Proposal(proposal.tokens[1:], proposal.probs[1:])
            assert verify(rows(proposal.tokens[:1], rest), rest, PLAIN, request, 1) == Verdict(
                whole.tokens[1:], whole.accepted - 1
            )


@pytest.mark.parametrize(
    ("choices", "proposed", "emitted", "accepted"),
    [
        pytest.param([5], [], (5,), 0, id="nothing proposed"),
        pytest.param([5, 6, 7, 8], [5, 6, 7], (5, 6, 7, 8), 3, id="all accepted, and the bonus token"),
        pytest.param([5, 6, 7, 8], [4, 6, 7], (5,), 0, id="right again after a wrong one, but too late"),
        pytest.param([5, 6, 7, 8], [5, 6, 8], (5, 6, 7), 2, id="the last one wrong"),
        pytest.param([5, 5, 5], [5, 6], (5, 5), 1, id="one of two"),
    ],
)
def test_a_greedy_verdict(choices: list[int], proposed: list[int], emitted: tuple[int, ...], accepted: int) -> None:
    assert verify_greedy(choices, proposed) == Verdict(emitted, accepted)
    logits = torch.nn.functional.one_hot(torch.tensor(choices), 10).float()
    assert verify(logits, Proposal(tuple(proposed)), Sampling(), 0, 0) == Verdict(emitted, accepted)


def test_greedy_verification_does_not_ask_how_likely_the_proposal_was() -> None:
    proposal = Proposal((1,), torch.tensor([[0.5, 0.5]]))
    assert verify(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), proposal, Sampling(), 0, 0) == Verdict((1, 0), 1)


@given(
    successors=st.lists(st.integers(0, 2), min_size=9, max_size=9),
    proposals=st.lists(st.lists(st.integers(0, 2), max_size=5), min_size=1, max_size=12),
)
def test_greedy_speculation_emits_what_plain_decoding_would(successors: list[int], proposals: list[list[int]]) -> None:
    def choice(tokens: list[int]) -> int:
        return successors[3 * tokens[-2] + tokens[-1]]

    tokens = [0, 1]
    for proposed in proposals:
        verdict = verify_greedy([choice(tokens + proposed[:n]) for n in range(len(proposed) + 1)], proposed)
        tokens += verdict.tokens
        assert len(verdict.tokens) == verdict.accepted + 1
        assert verdict.accepted == len(proposed) or verdict.tokens[-1] != proposed[verdict.accepted]
    plain = [0, 1]
    while len(plain) < len(tokens):
        plain.append(choice(plain))
    assert tokens == plain


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), PLAIN], ids=["greedy", "sampling"])
def test_logits_that_are_no_numbers_are_refused(broken: float, sampling: Sampling) -> None:
    logits = torch.zeros(2, V)
    logits[1, 2] = broken
    with pytest.raises(NonFiniteError, match="NaN or infinity in the logits of request 7"):
        verify(logits, Proposal((1,)), sampling, request=7, position=0)


def test_the_request_of_the_first_broken_row_of_a_pass_is_named() -> None:
    logits = torch.zeros(5, V)
    require_finite(logits, [3, 3, 4, 4, 9])
    logits[[2, 4], 0] = math.nan
    with pytest.raises(NonFiniteError, match="request 4; check the checkpoint's weights"):
        require_finite(logits, [3, 3, 4, 4, 9])
