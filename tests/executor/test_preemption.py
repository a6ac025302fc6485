"""Caches with room for a part of what may be needed: requests take turns, none is lost, and no token changes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as change

from executor.admission import Admission
from executor.batches import Batches
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.devices import Devices
from executor.engine import Chaos
from executor.memory import Ledger
from executor.ranks.stage import stage_of
from executor.requests import Request
from executor.sequence import Sequence
from executor.shrink import smaller
from executor.speculation.sampling import Sampling
from specsim.answer import Plan
from specsim.decision import DraftPolicy, StrategyName
from specsim.errors import InputError
from specsim.positions import decoding
from specsim.schedule.graph import TaskName
from tests.executor import checkpoints, runs
from tests.executor.decoder_stories import load
from tests.executor.runs import World

GREEDY, WARM = Sampling(), Sampling(1.5, seed=11)
GPU = World(gpu=True, attention="pinned", ffn="pinned")
VISITING = World(gpu=True, attention="vram", ffn="pinned", kv="ram")
STREAMED = DraftPolicy("gpu", "ram", 2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    folder = tmp_path_factory.mktemp("pair")
    target = checkpoints.make("mixtral", folder / "target", seed=1)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=2))


def capped(made: Plan, positions: int) -> Plan:
    policy = change(made.decision.policy, kv_positions=positions)
    return Plan(made.case, change(made.decision, policy=policy), made.predicted, made.search, made.provenance)


HOW: dict[str, dict[str, Any]] = {
    "serial": {"gamma": 3, "batch": 8},
    "serial refilled": {"gamma": 3, "batch": 8, "refill": True},
    "merged": {"gamma": 3, "strategy": "merged", "batch": 4},
    "merged refilled": {"gamma": 2, "strategy": "merged", "batch": 4, "refill": True, "verify_micro_batches": 2},
    "interleaved": {"gamma": 2, "strategy": "interleaved", "batch": 4, "prefill_batch": 3},
    "interleaved refilled": {"gamma": 2, "strategy": "interleaved", "batch": 4, "refill": True},
    "forgetful draft": {"gamma": 2, "batch": 8, "draft_policy": DraftPolicy("cpu", "none", 4), "refill": True},
    "ngram": {"gamma": 3, "batch": 8, "ngram": True, "refill": True},
    "plain": {"gamma": 0, "batch": 8},
    "gpu": {"gamma": 3, "strategy": "interleaved", "batch": 4, "refill": True, "world": GPU},
    "visiting": {"gamma": 3, "batch": 8, "refill": True, "world": VISITING, "draft_policy": STREAMED},
}


@pytest.mark.parametrize(
    ("name", "sampling"),
    [*((name, WARM) for name in HOW), ("merged", GREEDY), ("interleaved refilled", GREEDY), ("ngram", GREEDY)],
)
def test_a_fifth_of_the_caches_gives_the_same_tokens(
    pair: tuple[Checkpoint, Checkpoint], name: str, sampling: Sampling
) -> None:
    target, draft = pair
    how = dict(HOW[name])
    drafting = draft if how["gamma"] and not how.pop("ngram", False) else None
    models = {"target": target.architecture.model, "draft": drafting.architecture.model if drafting else None}
    made = runs.plan(**models, **how)
    short = runs.plan(**models, **how, prompt=20, output=16)  # as many in flight as the shortest allow
    requests = runs.prompts(4, 9, 96, shortest=20, longest=40, new=16)
    whole, job = runs.execute(made, target, requests, draft=drafting, sampling=sampling)
    assert job.batches.preemptions == 0
    fifth = job.batches.admission.places // 5
    chaos = Chaos(5, 0.0002) if "interleaved" in name else None
    some, job = runs.execute(capped(short, fifth), target, requests, draft=drafting, sampling=sampling, chaos=chaos)
    assert some == whole
    assert job.batches.preemptions > 0
    assert job.batches.restored_positions > 0
    assert job.batches.admission.places == fifth
    assert job.batches.admission.arena is not None
    assert job.batches.admission.arena.pool.free == fifth
    assert (job.batches.served, job.batches.done) == (9, 9)


def test_a_request_that_does_not_fit_alone_is_refused(pair: tuple[Checkpoint, Checkpoint]) -> None:
    target, _ = pair
    made = capped(runs.plan(target.architecture.model, batch=2), 50)
    requests = [Request(0, "short", (3,) * 20, 30), Request(1, "long", (3,) * 20, 31)]
    with pytest.raises(InputError) as caught:
        runs.execute(made, target, requests)
    assert str(caught.value) == (
        "request 'long': 20 prompt tokens and 31 new ones may need more than the 50 positions that all caches have; "
        "allow for at least 51 with --kv"
    )


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from(["serial", "merged", "interleaved"]),
    batch=st.integers(1, 5),
    gamma=st.integers(0, 4),
    refill=st.booleans(),
    lengths=st.lists(st.tuples(st.integers(1, 150), st.integers(1, 150)), min_size=1, max_size=12),
    spare=st.integers(0, 200),
    seed=st.integers(0, 2**32),
)
def test_whatever_the_lengths_and_the_cap_all_are_served_in_order(
    strategy: StrategyName,
    batch: int,
    gamma: int,
    refill: bool,
    lengths: list[tuple[int, int]],
    spare: int,
    seed: int,
) -> None:
    """Rounds without a model: each pass gives a sequence as many of its candidates as luck will have it."""
    rng = random.Random(seed)
    arch = load("llama").arch
    cap = max(prompt + new for prompt, new in lengths) + spare
    made = capped(runs.plan(arch.model, strategy=strategy, gamma=gamma, batch=batch, refill=refill), cap)
    decision = made.decision
    admission = Admission(decision, stage_of(made, None), arch, None, Devices("cpu"), Ledger({"ram": 1e12}), None)
    batches = Batches(decision.policy, 200, admission)
    batches.receive(Request(i, str(i), (1,) * prompt, new) for i, (prompt, new) in enumerate(lengths))
    passes, tokens = 0, sum(new for _, new in lengths)

    def close(name: str, phase: str, number: int) -> None:
        nonlocal passes
        passes += 1
        before = {s.index for s in batches.in_flight}
        for sequence in batches.active[name]:
            candidates = sequence.candidates(gamma)
            assert len(sequence.tokens) - 1 + candidates < sequence.cache.capacity
            batches.commit(sequence, () if sequence.restoring else (1,) * (1 + rng.randint(0, candidates)), 0)
        batches.end_pass(TaskName(phase, number, name, "head", "logits"))
        assert admission._arena.pool.free == admission.places - sum(s.cache.capacity for s in batches.in_flight)
        joined = [s.index for s in batches.in_flight if s.index not in before]
        assert not (joined and batches.waiting and batches.waiting[0].index < max(joined))
        assert passes <= 4 * tokens + 4 * len(lengths)

    while batches.waiting:
        assert batches.next_wave()
        for name in batches.names:
            close(name, "prefill", 0)
        number = 0
        while batches.under_way:
            for name in batches.names:
                close(name, "verify", number)
            number += 1
    assert (batches.served, batches.done) == (len(lengths), len(lengths))
    assert admission._arena.pool.free == admission.places
    assert [batches.finished.get().remaining for _ in lengths] == [0] * len(lengths)


@pytest.mark.parametrize("seed", range(25, 38))
def test_who_had_committed_when_a_pass_ran_out_of_memory_has_room_for_the_next_round(seed: int) -> None:
    """Rounds without a model, of which one is broken off after some of its sequences have committed."""
    rng = random.Random(seed)
    arch, gamma, new = load("llama").arch, 4, 150
    made = capped(runs.plan(arch.model, gamma=gamma, batch=4, refill=True), 900)
    admission = Admission(made.decision, stage_of(made, None), arch, None, Devices("cpu"), Ledger({"ram": 1e12}), None)
    batches = Batches(made.decision.policy, 200, admission)
    batches.receive(Request(i, str(i), (1,) * rng.randint(20, 150), new) for i in range(8))
    breaks, rounds = rng.randint(5, 40), 0

    def decide(sequences: list[Sequence]) -> None:
        for sequence in sequences:
            candidates = sequence.candidates(gamma)
            assert len(sequence.tokens) - 1 + candidates < sequence.cache.capacity
            batches.commit(sequence, () if sequence.restoring else (1,) * (1 + rng.randint(0, candidates)), 0)

    while batches.waiting or batches.paused:
        decide([s for s in batches.next_wave() if s.fresh or s.restoring])
        batches.end_pass(TaskName("prefill", 0, "A", "head", "logits"))
        while batches.under_way:
            rounds += 1
            if rounds == breaks:
                decide(batches.active["A"][: rng.randint(1, 3)])
                found = smaller(made.decision, "decode")
                assert found is not None
                batches.regroup(found.decision.policy, 100)
                break
            decide(batches.active["A"])
            batches.end_pass(TaskName("verify", rounds, "A", "head", "logits"))
    assert rounds > breaks
    assert (batches.served, batches.done) == (8, 8)
    assert admission._arena.pool.free == admission.places
    assert [batches.finished.get().remaining for _ in range(8)] == [0] * 8


def test_what_is_wanted_is_counted_while_nobody_takes_a_place() -> None:
    arch = load("llama").arch
    made = runs.plan(arch.model, batch=2, refill=True)
    admission = Admission(made.decision, stage_of(made, None), arch, None, Devices("cpu"), Ledger({"ram": 1e12}), None)
    batches = Batches(made.decision.policy, 200, admission)

    class Line(deque[Request]):
        def __iter__(self) -> Iterator[Request]:
            assert batches._moving.locked(), "an engine's thread may take the first meanwhile: RuntimeError"
            return super().__iter__()

    batches.receive(Request(i, str(i), (1,), 10) for i in range(4))
    batches.waiting = Line(batches.waiting)
    batches.next_wave()
    assert (len(batches.waiting), batches.wanted) == (2, 40)


def test_no_more_sequences_take_part_than_memory_is_counted_for() -> None:
    """Prompts that are shorter than planned would find room for more."""
    arch = load("llama").arch
    for refill in (False, True):
        made = capped(runs.plan(arch.model, prompt=64, output=96, gamma=3, batch=12, refill=refill), 782)
        policy, work = made.decision.policy, made.case.workload
        most = decoding(work, policy)
        admission = Admission(
            made.decision, stage_of(made, None), arch, None, Devices("cpu"), Ledger({"ram": 1e12}), None
        )
        batches = Batches(policy, 10**6, admission, most=most)
        batches.receive(Request(i, str(i), (1,) * 5, 20) for i in range(40))
        batches.next_wave()
        number = 0
        while batches.under_way:
            assert len(batches.in_flight) <= most < 12
            for sequence in batches.active["A"]:
                batches.commit(sequence, (1,) * (1 + sequence.index % 3), 0)
            batches.end_pass(TaskName("verify", number, "A", "head", "logits"))
            number += 1
        assert batches.done == (40 if refill else most)


def test_who_had_to_leave_their_place_leave_the_line_when_cancelled() -> None:
    """As the service does, with no more prefill for what nobody wants; what was committed before is still told."""
    arch = load("llama").arch
    made = capped(runs.plan(arch.model, gamma=0, batch=2, refill=True), 130)
    admission = Admission(made.decision, stage_of(made, None), arch, None, Devices("cpu"), Ledger({"ram": 1e12}), None)
    batches = Batches(made.decision.policy, 200, admission)
    batches.receive(Request(i, str(i), (1,) * 30, 90) for i in range(2))
    batches.next_wave()
    number = 0
    while not batches.waiting:
        for sequence in batches.active["A"]:
            batches.commit(sequence, (1,), 0)
        batches.end_pass(TaskName("verify", number, "A", "head", "logits"))
        number += 1
    left = batches.cancel(1)
    assert left is not None
    assert (left.index, left.committed) == (1, (1,) * number)
    assert not batches.waiting
    assert batches.cancel(0) is None, "it has a place until its next commit"
