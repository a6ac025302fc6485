"""Requests that come and go at any time: the tokens are those of a run, and nothing is left behind."""

from __future__ import annotations

import gc
import random
from dataclasses import replace
from typing import Any

import pytest

from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.decoder.numerics import EXACT
from executor.decoder.resident import generate_greedy, load_resident
from executor.kept import LEAST_TOKENS
from executor.requests import Request
from executor.service.service import BusyError, ClosedError, Ended, Service
from executor.speculation.sampling import Sampling
from executor.tasks import table
from specsim.answer import Plan
from specsim.decision import DraftPolicy
from specsim.errors import InputError
from tests.executor import checkpoints, runs
from tests.executor.runs import World
from tests.executor.service_stories import PATIENCE_S, Client, service

WARM = Sampling(1.5, seed=11)
Pair = tuple[Checkpoint, Checkpoint]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    target = checkpoints.make("mixtral", folder / "target", seed=1)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=2))


def plan(pair: Pair, **how: Any) -> Plan:
    target, draft = (one.architecture.model for one in pair)
    return runs.plan(
        target, **{"draft": draft, "gamma": 3, "batch": 2, "prompt": 120, "output": 24, "refill": True} | how
    )


def alone(pair: Pair, requests: list[Request]) -> list[list[int]]:
    """What a run gives."""
    return runs.execute(plan(pair, batch=8, refill=False), pair[0], requests, draft=pair[1])[0]


@pytest.mark.parametrize(
    "how",
    [
        {"strategy": "serial"},
        {"strategy": "serial", "refill": False},
        {"strategy": "merged", "batch": 4, "kv_positions": 160},
        {"strategy": "merged"},
        {"strategy": "interleaved"},
        {"strategy": "interleaved", "world": World(gpu=True, kv="ram")},
        {"strategy": "serial", "world": World(gpu=True, processor="cpu")},
    ],
    ids=["serial", "waves", "short of places", "merged", "interleaved", "visiting caches", "cpu attention"],
)
def test_requests_that_come_at_any_time_get_the_tokens_of_a_run(pair: Pair, how: dict[str, Any]) -> None:
    """Some at once, some while others are in flight, some when all is idle: any round may be joined or be the last."""
    requests = [
        replace(request, sampling=[WARM, Sampling()][request.index % 2], key=0)
        for request in runs.prompts(4, 14, 96, longest=40, new=9)
    ]
    expected = alone(pair, requests)
    with service(plan(pair, **how), *pair) as serving:
        clients = []
        for request in requests:
            clients.append(Client(serving, request.prompt, 9, request.sampling, eos=request.eos))
            if request.index % 4 == 1:
                clients[-1].tokens()
            if request.index % 4 == 3:
                for client in clients[-2:]:
                    client.end()
        for client, output in zip(clients, expected, strict=True):
            if client.heard != output:
                client.end()
            assert client.heard == output
    assert serving.free_positions == serving.job.batches.admission.places


def test_a_seed_gives_the_same_tokens_whenever_it_is_asked(pair: Pair) -> None:
    prompt = list(range(3, 30))
    with service(plan(pair), *pair) as serving:
        first = Client(serving, prompt, sampling=WARM).end().output_ids
        others = [Client(serving, prompt, sampling=replace(WARM, seed=seed)) for seed in (5, 11)]
        assert [client.end().output_ids == first for client in others] == [False, True]


# Turns of a conversation


def turns(serving: Service, count: int, sampling: Sampling) -> tuple[list[list[int]], list[int]]:
    """Answers of a conversation in which every turn adds 5 tokens to all that was said, and how much was cached."""
    rng = random.Random(8)
    said = [rng.randrange(3, 96) for _ in range(20)]
    answers, reused = [], []
    for _ in range(count):
        generation = Client(serving, said, 6, sampling).end()
        answers.append(generation.output_ids)
        reused.append(generation.reused)
        said += [*generation.output_ids, *(rng.randrange(3, 96) for _ in range(5))]
    return answers, reused


@pytest.mark.parametrize(
    ("how", "sampling"),
    [
        ({}, WARM),
        ({"draft": None}, WARM),
        ({"draft": None, "gamma": 0}, Sampling()),
        ({"refill": False, "strategy": "interleaved"}, Sampling()),
        ({"draft_policy": DraftPolicy("cpu", "none", 2)}, WARM),
        ({"world": World(gpu=True, kv="ram"), "draft_policy": DraftPolicy("gpu", "ram", 2)}, WARM),
        ({"world": World(gpu=True, processor="cpu+projections")}, Sampling()),
    ],
    ids=["model", "ngram", "plain", "interleaved", "forgetful draft", "visiting caches", "cpu attention"],
)
def test_ten_turns_read_only_what_is_new_and_give_the_tokens_of_reading_all(
    pair: Pair, how: dict[str, Any], sampling: Sampling
) -> None:
    made, drafting = plan(pair, **how), pair[1] if how.get("draft", 1) else None
    with service(made, pair[0], drafting) as serving:
        answers, reused = turns(serving, 10, sampling)
        assert reused == [0] + [20 + 11 * turn - 6 for turn in range(1, 10)]
    with service(made, pair[0], drafting, keep=False) as forgetful:
        assert turns(forgetful, 10, sampling) == (answers, [0] * 10)


def test_what_is_kept_costs_no_admission_and_is_read_again_when_it_is_gone(pair: Pair) -> None:
    """Room for two requests: two others need all of it, so the conversation's cache goes, and comes back."""
    rng = random.Random(1)
    prompts = [[rng.randrange(3, 96) for _ in range(100)] for _ in range(3)]
    with service(plan(pair), *pair) as serving:
        first = Client(serving, prompts[0], 24).end()
        longer = [*prompts[0], *first.output_ids[:10]]
        assert serving.kept_positions == 123
        others = [Client(serving, prompt, 44) for prompt in prompts[1:]]
        assert [client.end().reused for client in others] == [0, 0]
        again = Client(serving, longer, 14).end()
        assert again.reused == 0
        assert again.output_ids == first.output_ids[10:]
        assert Client(serving, longer, 14).end().reused == 109


def test_a_short_common_beginning_takes_no_cache_away(pair: Pair) -> None:
    """A system prompt, say: the long conversation comes back for its cache."""
    system = list(range(3, 33))
    with service(plan(pair), *pair) as serving:
        Client(serving, system * 3, 8).end()
        assert Client(serving, [*system, 90, 91], 8).end().reused == 0
        assert Client(serving, [*system * 3, 90], 8).end().reused == 90
        assert Client(serving, [*system, 90, 91, 92], 8).end().reused == 32
        assert Client(serving, [5, 6], 8).end().reused == 0


# Ends


def test_a_cancelled_request_gives_its_place_to_the_next(pair: Pair) -> None:
    with service(plan(pair, batch=1), *pair) as serving:
        first = Client(serving, [5, 6, 7], 24)
        waits, goes = Client(serving, [8, 9], 4), Client(serving, [9, 9], 4)
        first.tokens()
        serving.cancel(goes.ticket)
        serving.cancel(first.ticket)
        assert first.end().finish_reason == "cancelled"
        assert len(first.heard) < 24
        assert waits.end().finish_reason == "length"
        serving.cancel(first.ticket)  # once more does nothing
        assert serving.counts.ends == {"cancelled": 2, "length": 1}
        assert goes.end().finish_reason == "cancelled"


def test_what_is_too_short_to_be_taken_over_is_not_kept(pair: Pair) -> None:
    """A request that was cancelled before its first pass has a cache of no places, which nobody would ever need."""
    with service(plan(pair), *pair) as serving:
        for token in range(3, 9):
            client = Client(serving, [5, token], 24)
            serving.cancel(client.ticket)
            client.end()
            Client(serving, [5, token], 4).end()
        kept = serving.job.batches.admission.kept
        assert kept is not None
        assert [entry for entry in kept.entries if len(entry.tokens) < LEAST_TOKENS] == []


def test_more_than_may_wait_are_refused_and_longer_than_planned(pair: Pair) -> None:
    with service(plan(pair, batch=1), *pair, queue=1) as serving:
        clients = [Client(serving, [5, 6], 24), Client(serving, [5, 7], 2)]
        with pytest.raises(BusyError):
            Client(serving, [5, 8])
        for client in clients:
            client.end()
        with pytest.raises(InputError, match="the prompt has 121 tokens, at most 120 are planned for"):
            Client(serving, [5] * 121)
        with pytest.raises(InputError, match="120 prompt tokens and 25 new ones exceed the context of 144"):
            Client(serving, [5] * 120, 25)
        assert len(Client(serving, [5] * 100, 44).end().output_ids) == 44


def test_closing_lets_requests_end_for_a_while_and_cancels_the_rest(pair: Pair) -> None:
    with service(plan(pair, batch=2), *pair) as serving:
        short = Client(serving, [5, 6], 2)
        serving.close(PATIENCE_S)
        assert short.end().finish_reason == "length"
        with pytest.raises(ClosedError):
            Client(serving, [5, 6])
    with service(plan(pair, batch=2), *pair) as serving:
        clients = [Client(serving, [5, token], 24) for token in range(3, 9)]
        clients[0].tokens()
        serving.close(0.0)
        assert clients[0].end().finish_reason == "cancelled"
    assert serving.free_positions == serving.job.batches.admission.places


def test_an_error_ends_the_service_and_all_who_ask_hear_of_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise InputError("the disk is gone")

    with service(plan(pair), *pair) as serving:
        Client(serving, [5, 6], 2).end()
        monkeypatch.setitem(table.TARGET, "ffn", fail)
        event = Client(serving, [5, 6], 2).events.get(timeout=PATIENCE_S)
        assert isinstance(event, Ended)
        assert str(event.error) == "the disk is gone"
        with pytest.raises(ClosedError):
            Client(serving, [5, 6])


def test_thousands_of_requests_leave_nothing_behind(pair: Pair) -> None:
    """All objects of the job are counted, after as many requests as it takes to fill what is bounded, and again."""
    made = plan(pair, batch=16, prompt=8, output=2, gamma=1, world=World(ffn="ram", part_bytes=2**30))
    counts = []
    with service(made, *pair, queue=512) as serving:
        for _ in range(3):
            clients = [Client(serving, [3 + i % 90, 5], 2) for i in range(512)]
            for client in clients:
                client.end()
            del clients, client
            gc.collect()
            counts.append(len(gc.get_objects()))
        assert serving.counts.ends == {"length": 1536}
    assert counts[2] - counts[1] < 512, counts


def test_the_plain_decoder_agrees(pair: Pair) -> None:
    prompt = list(range(3, 20))
    with service(plan(pair), *pair) as serving:
        assert Client(serving, prompt, 12).end().output_ids == generate_greedy(
            load_resident(pair[0], EXACT), prompt, 12
        )
