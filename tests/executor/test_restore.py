"""Requests that begin with output committed before: they go on as if nothing had been in between."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from executor.batches import Commit
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.requests import Generation, Request
from executor.speculation.sampling import Sampling
from specsim.decision import DraftPolicy
from specsim.errors import InputError
from tests.executor import checkpoints, runs

WARM = Sampling(1.5, seed=11)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    folder = tmp_path_factory.mktemp("pair")
    target = checkpoints.make("mixtral", folder / "target", seed=1)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=2))


def cut(request: Request, commits: list[Commit], rng: random.Random) -> Request:
    """The request as a run knew it that was killed after one of its own commits, perhaps before the first."""
    own = [commit for commit in commits if commit.request == request.index]
    known = [token for commit in own[: rng.randrange(len(own))] for token in commit.tokens]
    return replace(request, committed=tuple(known))


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "how",
    [
        {"gamma": 3, "strategy": "serial", "batch": 3},
        {"gamma": 3, "strategy": "merged", "batch": 2, "refill": True},
        {"gamma": 2, "strategy": "interleaved", "batch": 2, "refill": True, "verify_micro_batches": 2},
        {"gamma": 2, "strategy": "serial", "batch": 4, "draft_policy": DraftPolicy("cpu", "none", 4)},
        {"gamma": 3, "strategy": "serial", "batch": 2, "ngram": True, "refill": True},
        {"gamma": 0, "strategy": "serial", "batch": 3},
    ],
    ids=["serial", "merged", "interleaved", "forgetful draft", "ngram", "plain"],
)
def test_a_request_cut_after_any_round_ends_with_the_same_tokens(
    pair: tuple[Checkpoint, Checkpoint], how: dict[str, Any], sampling: Sampling
) -> None:
    target, draft = pair
    ngram = "ngram" in how
    how = {key: value for key, value in how.items() if key != "ngram"}
    drafting = draft if how["gamma"] and not ngram else None
    made = runs.plan(target.architecture.model, draft=drafting and drafting.architecture.model, **how)
    requests = runs.prompts(4, 7, 96, longest=20, new=12)
    commits: list[Commit] = []
    whole, _ = runs.execute(made, target, requests, draft=drafting, sampling=sampling, record=commits.append)
    for request, output in zip(requests, whole, strict=True):
        assert [t for commit in commits if commit.request == request.index for t in commit.tokens] == output
    rng = random.Random(7)
    restored = [cut(request, commits, rng) for request in requests]
    assert any(request.committed for request in restored)
    assert runs.execute(made, target, restored, draft=drafting, sampling=sampling)[0] == whole


def test_what_was_committed_counts_toward_the_most_new_tokens() -> None:
    generation = Generation(Request(0, "a", (5, 6), 3, committed=(7,)))
    assert generation.output_ids == [7]
    assert generation.remaining == 2
    assert generation.take([8, 9, 10]) == 2
    assert generation.finish_reason == "length"


def test_committed_tokens_after_the_end_are_refused() -> None:
    with pytest.raises(InputError, match="tokens follow the 2 that end its output \\(eos\\)"):
        Generation(Request(0, "a", (5, 6), 9, eos=frozenset({2}), committed=(7, 2, 8)))
