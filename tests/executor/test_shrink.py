"""Out of memory: the run goes on with less at once, and its tokens are those that it would have had."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch

from executor import setup
from executor.batches import Batches
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.checkpoint.read import Reader
from executor.decoder.resident import ResidentModel
from executor.devices import Devices
from executor.engine import Engine
from executor.job import Job
from executor.links import Link
from executor.requests import GREEDY, Request
from executor.shrink import is_out_of_memory, smaller
from executor.speculation.sampling import Sampling
from executor.tasks import table
from specsim.answer import Plan
from specsim.decision import DraftPolicy, StrategyName
from tests.executor import checkpoints, runs
from tests.executor.runs import World

WARM = Sampling(temperature=1.5, seed=11)
WORLDS = {
    "disk": World(),
    "visiting-kv": World(gpu=True, attention="vram", ffn="pinned", kv="ram"),
    "cpu-core": World(gpu=True, attention="vram", ffn="pageable", processor="cpu"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    folder = tmp_path_factory.mktemp("pair")
    target = checkpoints.make("mixtral", folder / "target", seed=1)
    return open_checkpoint(target), open_checkpoint(checkpoints.make("mistral", folder / "draft", seed=2))


def torch_fails() -> None:
    torch.empty(2**60)  # more than any machine has: torch's own error


def device_fails() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def python_fails() -> None:
    raise MemoryError


def kernel_fails() -> None:
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


FAILURES = {"host": torch_fails, "device": device_fails, "python": python_fails, "kernel": kernel_fails}


@pytest.mark.parametrize("fails", FAILURES.values(), ids=FAILURES)
def test_out_of_memory_is_known_however_it_is_told(fails: Callable[[], None]) -> None:
    with pytest.raises((MemoryError, RuntimeError, OSError)) as caught:
        fails()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError(errno.EIO, "no"), ValueError("memory")])
def test_other_errors_are_others(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_half_of_what_goes_together_then_less_ahead_then_nothing(pair: tuple[Checkpoint, Checkpoint]) -> None:
    decision = runs.plan(pair[0].architecture.model, batch=3, ring_slots=2).decision
    told = []
    while (found := smaller(decision, "decode")) is not None:
        told.append(found.what)
        decision = found.decision
    assert told == ["1 of 3 sequences in a batch", "1 of 2 slots of the ring"]
    decision = runs.plan(pair[0].architecture.model, batch=3, prefill_batch=3, ring_slots=1).decision
    found = smaller(decision, "prefill")
    assert found is not None
    assert (found.decision.policy.batch, found.what) == (3, "1 of 3 sequences at a time in prefill")
    assert smaller(found.decision, "prefill") is None


def break_calls(patch: pytest.MonkeyPatch, op: str, calls: Collection[int], fails: Callable[[], None]) -> None:
    """Let some of the calls of a kind of task fail, counted from 1."""
    tasks: dict[str, Any] = table.DRAFT if op == "forward" else table.TARGET
    real, count = tasks[op], itertools.count(1)

    def call(c: Any, name: Any, task: Any) -> Any:
        if next(count) in calls:
            fails()
        return real(c, name, task)

    patch.setitem(tasks, op, call)


def execute(
    plan: Plan, pair: tuple[Checkpoint, Checkpoint], requests: list[Request], sampling: Sampling = GREEDY
) -> tuple[list[list[int]], Job]:
    drafting = pair[1] if plan.decision.policy.draft is not None else None
    return runs.execute(plan, pair[0], requests, draft=drafting, sampling=sampling)


def _slow(world: str, strategy: str, warm: bool) -> bool:
    """Enough of them meet every world, strategy and sampling."""
    return (world, strategy, warm) not in {
        ("disk", "serial", False),
        ("visiting-kv", "merged", True),
        ("cpu-core", "interleaved", True),
    }


@pytest.mark.parametrize(
    ("world", "strategy", "sampling"),
    [
        pytest.param(
            world,
            strategy,
            WARM if warm else GREEDY,
            id=f"{world}-{strategy}-{'sampled' if warm else 'greedy'}",
            marks=[pytest.mark.slow] if _slow(world, strategy, warm) else [],
        )
        for world, strategy, warm in itertools.product(WORLDS, ("serial", "merged", "interleaved"), (False, True))
    ],
)
def test_tokens_are_those_of_a_run_with_enough_memory(
    pair: tuple[Checkpoint, Checkpoint],
    world: str,
    strategy: StrategyName,
    sampling: Sampling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory runs out three times, in tasks drawn by chance: of the target's layers, its logits, the draft."""
    model, small = pair[0].architecture.model, pair[1].architecture.model
    requests = runs.prompts(5, 7, 96, longest=40, new=12)
    plan = runs.plan(
        model, draft=small, world=WORLDS[world], strategy=strategy, gamma=2, batch=4, prefill_batch=4, refill=True
    )
    expected, whole = execute(plan, pair, requests, sampling)
    rng = random.Random(f"{world} {strategy} {sampling}")
    for op in ("ffn", "attention", "logits", "forward", "kv_in"):
        if op == "kv_in" and world != "visiting-kv":
            continue
        with monkeypatch.context() as patch:
            break_calls(patch, op, {rng.randint(1, 4), rng.randint(5, 8)}, rng.choice(list(FAILURES.values())))
            got, job = execute(plan, pair, requests, sampling)
        assert got == expected, op
        assert job.shrunk, op
        assert not whole.shrunk
        assert job.batches.useful_tokens == sum(map(len, expected))
        assert job.batches.done == job.batches.served == len(requests)


def test_logits_that_failed_after_some_sequences_were_committed(
    pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = runs.prompts(5, 6, 96, longest=40, new=12)
    plan = runs.plan(pair[0].architecture.model, draft=pair[1].architecture.model, gamma=2, batch=4, prefill_batch=4)
    expected, _ = execute(plan, pair, requests)
    real, calls = Batches.commit, 0

    def commit(self: Batches, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 12, 15):
            python_fails()
        real(self, *args)

    monkeypatch.setattr(Batches, "commit", commit)
    got, job = execute(plan, pair, requests)
    assert got == expected
    assert len(job.shrunk) == 3


def test_memory_that_never_suffices_ends_the_run(
    pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = runs.prompts(5, 6, 96, longest=40, new=12)
    plan = runs.plan(pair[0].architecture.model, batch=4, prefill_batch=4, ring_slots=2)
    break_calls(monkeypatch, "ffn", range(1, 10_000), device_fails)
    shrunk: list[str] = []
    with Engine() as engine:
        job = setup.prepare(plan, pair[0], None, engine, Devices("cpu"), Link(), Reader(), setup.Ways())
        with pytest.raises(torch.OutOfMemoryError):
            job.run(requests, on_shrink=shrunk.append)
    assert shrunk == [
        "out of memory in prefill: going on with 2 of 4 sequences at a time in prefill",
        "out of memory in prefill: going on with 1 of 2 sequences at a time in prefill",
        "out of memory in prefill: going on with 1 of 2 slots of the ring",
    ]


def test_what_a_failed_allocation_was_entered_as_is_given_back(
    pair: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft's weights wait for the prefill, and there is no room for them at first."""
    requests = runs.prompts(5, 4, 96, longest=40, new=12)
    waits = DraftPolicy("cpu", "ram", 2, waits=True)
    small = pair[1].architecture.model
    plan = runs.plan(pair[0].architecture.model, draft=small, gamma=2, batch=2, prefill_batch=2, draft_policy=waits)
    expected, whole = execute(plan, pair, requests)
    real, loads = setup.load_resident, 0

    def load(*given: Any) -> ResidentModel:
        nonlocal loads
        loads += 1
        if loads == 1:
            torch_fails()
        return real(*given)

    monkeypatch.setattr(setup, "load_resident", load)
    got, job = execute(plan, pair, requests)
    assert (got, len(job.shrunk), loads) == (expected, 1, 2)
    assert job.ledger.items["ram", "draft weights"] == whole.ledger.items["ram", "draft weights"] > 0
