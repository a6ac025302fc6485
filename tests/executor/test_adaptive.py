"""Draft lengths that follow what is measured: no token changes that should not, and less is drafted in vain."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as change

from executor import setup
from executor.batches import Batches, Commit
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.job import Job
from executor.requests import GREEDY, Request
from executor.speculation.sampling import Sampling
from specsim.acceptance import Acceptance
from specsim.answer import Plan
from specsim.decision import DraftPolicy
from specsim.schedule.graph import TaskName
from specsim.simulator.lengths import DraftLengths, Seen
from tests.executor import checkpoints, runs

WARM = Sampling(temperature=1.5, seed=11)
#: candidates cost, so that fewer are wanted where few are accepted
LENGTHS = DraftLengths((1.0, 1.2, 1.4, 1.6, 1.8), Acceptance.constant(0.8, "assumed", "tests"), 8.0)


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for plans that differ in batch and schedule, whose own tables would differ too."""
    monkeypatch.setattr(setup, "draft_lengths", lambda case, decision: LENGTHS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """A target, and a draft that knows nothing of it."""
    folder = tmp_path_factory.mktemp("pair")
    target = checkpoints.make("mixtral", folder / "target", seed=1)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=2))


def planned(pair: tuple[Checkpoint, Checkpoint], *, ngram: bool = False, **policy: Any) -> Plan:
    target, draft = pair
    return runs.plan(
        target.architecture.model,
        draft=None if ngram else draft.architecture.model,
        **{"gamma": 4, "batch": 4} | policy,
    )


def run(
    pair: tuple[Checkpoint, Checkpoint],
    requests: list[Request],
    *,
    plan: Plan | None = None,
    adaptive: bool = True,
    sampling: Sampling = GREEDY,
    ngram: bool = False,
    commits: list[Commit] | None = None,
    **policy: Any,
) -> tuple[list[list[int]], Job]:
    target, draft = pair
    return runs.execute(
        plan or planned(pair, ngram=ngram, **policy),
        target,
        requests,
        draft=None if ngram else draft,
        sampling=sampling,
        adaptive=adaptive,
        record=(commits if commits is not None else []).append,
    )


def requests(count: int = 4, new: int = 20) -> list[Request]:
    return runs.prompts(4, count, 96, longest=20, new=new)


@pytest.mark.parametrize(("strategy", "ngram"), [("serial", True), ("merged", False), ("interleaved", False)])
def test_greedy_tokens_are_those_of_fixed_lengths(
    pair: tuple[Checkpoint, Checkpoint], strategy: str, ngram: bool
) -> None:
    fixed, job = run(pair, requests(), adaptive=False, ngram=ngram, strategy=strategy, batch=2, refill=True)
    got, other = run(pair, requests(), ngram=ngram, strategy=strategy, batch=2, refill=True)
    assert got == fixed
    assert other.batches.acceptance.proposed <= job.batches.acceptance.proposed


def test_less_is_drafted_where_little_is_accepted(pair: tuple[Checkpoint, Checkpoint]) -> None:
    _, fixed = run(pair, requests(new=40), adaptive=False)
    _, adaptive = run(pair, requests(new=40))
    rate = fixed.batches.acceptance.rate
    assert rate is not None
    assert rate < 0.3
    assert adaptive.batches.acceptance.proposed < 0.6 * fixed.batches.acceptance.proposed


def test_a_draft_that_is_always_right_drafts_as_much_as_planned(pair: tuple[Checkpoint, Checkpoint]) -> None:
    itself = pair[0], pair[0]
    fixed, adaptive = (run(itself, requests(), adaptive=way)[1].batches.acceptance for way in (False, True))
    assert (adaptive.proposed, adaptive.accepted) == (fixed.proposed, fixed.accepted)
    assert adaptive.rate == 1.0


@pytest.mark.parametrize("ngram", [False, True])
def test_sampled_tokens_do_not_depend_on_who_else_is_in_flight(
    pair: tuple[Checkpoint, Checkpoint], ngram: bool
) -> None:
    asked = requests()
    together, _ = run(pair, asked, sampling=WARM, ngram=ngram, batch=4)
    for strategy, batch, refill in [("serial", 1, False), ("interleaved", 1, True)]:
        others, _ = run(pair, asked, sampling=WARM, ngram=ngram, strategy=strategy, batch=batch, refill=refill)
        assert others == together
    alone, _ = run(pair, asked[3:4], sampling=WARM, ngram=ngram)
    assert alone == together[3:4]


def test_a_draft_cache_in_ram_comes_to_the_gpu_only_where_its_sequence_drafts(
    pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(new=20)
    visiting = {"world": runs.World(gpu=True, kv="ram"), "draft_policy": DraftPolicy("gpu", "ram", 2)}
    fixed, drafting = run(pair, asked, adaptive=False, **visiting)
    monkeypatch.setattr(setup, "draft_lengths", lambda case, decision: replace(LENGTHS, seconds=(1.0, 9.0)))
    plain, probing = run(pair, asked, **visiting)
    assert plain == fixed
    often, seldom = (
        [s.bytes for s in job.engine.timeline().spans if "/draft/kv_in" in s.name] for job in (drafting, probing)
    )
    assert sum(moved > 0 for moved in often) > 10
    assert sum(moved > 0 for moved in seldom) == 2, "both micro-batches, in the sixteenth round"


def test_the_lengths_of_a_run_are_its_plans(
    pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def draft_lengths(case: object, decision: object) -> DraftLengths:
        asked.append(1)
        return LENGTHS

    monkeypatch.setattr(setup, "draft_lengths", draft_lengths)
    run(pair, requests(2, 4), adaptive=False)
    assert not asked
    run(pair, requests(2, 4))
    assert asked == [1]


def shown(commits: list[Commit]) -> Seen:
    seen = Seen()
    for commit in commits:
        seen = seen.after(commit.proposed, commit.accepted)
    return seen


@pytest.mark.parametrize("ngram", [False, True])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_request_cut_after_any_round_goes_on_with_the_same_lengths(
    pair: tuple[Checkpoint, Checkpoint], sampling: Sampling, ngram: bool
) -> None:
    commits: list[Commit] = []
    asked = requests(new=30)
    whole, _ = run(pair, asked, sampling=sampling, ngram=ngram, commits=commits)
    rng = random.Random(3)
    cut, before = [], []
    for request in asked:
        own = [commit for commit in commits if commit.request == request.index]
        known = own[: rng.randrange(len(own) // 2, len(own))]
        before += known
        tokens = tuple(token for commit in known for token in commit.tokens)
        cut.append(replace(request, committed=tokens, seen=shown(known)))
    rest: list[Commit] = []
    assert run(pair, cut, sampling=sampling, ngram=ngram, commits=rest, strategy="merged", batch=2)[0] == whole
    by_request = [sorted(some, key=lambda commit: commit.request) for some in (commits, before + rest)]
    assert by_request[0] == by_request[1], "the same rounds, not only the same tokens"


def test_without_what_its_rounds_have_shown_a_request_that_was_cut_would_go_on_otherwise(
    pair: tuple[Checkpoint, Checkpoint],
) -> None:
    """So the test above can fail."""
    commits: list[Commit] = []
    asked = requests(1, new=40)
    whole, _ = run(pair, asked, sampling=WARM, commits=commits)
    known = tuple(token for commit in commits[: len(commits) // 2] for token in commit.tokens)
    assert run(pair, [replace(asked[0], committed=known)], sampling=WARM)[0] != whole


@pytest.mark.parametrize(
    ("how", "sampling"),
    [
        ({"batch": 8}, WARM),
        ({"batch": 8, "strategy": "serial", "refill": True}, GREEDY),
        ({"strategy": "interleaved", "refill": True}, WARM),
        ({"batch": 8, "ngram": True, "refill": True}, WARM),
    ],
    ids=["serial", "serial refilled, greedy", "interleaved", "ngram"],
)
def test_a_request_that_had_to_wait_goes_on_with_the_same_lengths(
    pair: tuple[Checkpoint, Checkpoint], how: dict[str, Any], sampling: Sampling
) -> None:
    asked = runs.prompts(4, 9, 96, shortest=20, longest=40, new=24)
    whole, job = run(pair, asked, sampling=sampling, **how)
    made = planned(pair, **how, prompt=20, output=24)  # as many in flight as the shortest allow
    policy = change(made.decision.policy, kv_positions=job.batches.admission.places // 5)
    capped = replace(made, decision=change(made.decision, policy=policy))
    some, job = run(pair, asked, plan=capped, sampling=sampling, ngram=how.get("ngram", False))
    assert job.batches.preemptions > 0
    assert some == whole


def test_a_wave_that_ran_out_of_memory_goes_on_with_the_same_lengths(
    pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(new=30)
    whole, _ = run(pair, asked, sampling=WARM)
    end_pass, passes = Batches.end_pass, iter(range(1000))

    def end(batches: Batches, name: TaskName) -> None:
        end_pass(batches, name)
        if next(passes) == 9:
            raise OSError(errno.ENOMEM, "no room")

    monkeypatch.setattr(Batches, "end_pass", end)
    some, job = run(pair, asked, sampling=WARM)
    assert job.shrunk == ["out of memory in decode: going on with 2 of 4 sequences in a batch"]
    assert some == whole
