"""Whatever the plan, the output is the target's own: token for token the plain decoder's."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pytest
import torch
from msgspec.structs import replace as change
from transformers import PreTrainedModel

from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.decoder.numerics import EXACT
from executor.decoder.resident import ResidentModel, generate_greedy, load_resident
from executor.engine import Chaos
from executor.requests import Request
from executor.speculation.verify import NonFiniteError
from specsim.decision import DraftPolicy, StrategyName, Tail
from specsim.schedule.graph import Ring
from tests.executor import checkpoints, runs
from tests.executor.runs import World

VOCAB = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@lru_cache
def opened(folder: Path, family: str, seed: int = 1, dtype: str = "float32") -> Checkpoint:
    return open_checkpoint(checkpoints.make(family, folder / f"{family}-{seed}-{dtype}", seed=seed, dtype=dtype))


@lru_cache
def plain(folder: Path, family: str, seed: int, dtype: str) -> ResidentModel:
    return load_resident(opened(folder, family, seed, dtype), EXACT)


@lru_cache
def reference(folder: Path, family: str, seed: int, dtype: str, requests: tuple[Request, ...]) -> list[list[int]]:
    model = plain(folder, family, seed, dtype)
    return [generate_greedy(model, list(r.prompt), r.max_new_tokens) for r in requests]


WORLDS = {
    "disk": World(),
    "ram": World(ffn="ram"),
    "whole-layers": World(part_bytes=2**40),
    "pinned": World(gpu=True, attention="pinned", ffn="pinned"),
    "visiting-kv": World(gpu=True, attention="vram", ffn="pinned", kv="ram"),
    "disk-to-gpu": World(gpu=True, attention="disk", ffn="disk"),
    "cpu-core": World(gpu=True, attention="vram", ffn="pageable", processor="cpu"),
    "cpu-attention": World(gpu=True, attention="pinned", ffn="pinned", processor="cpu+projections", cpu_parts=2),
    "cpu-parts-from-disk": World(gpu=True, attention="vram", ffn="disk", cpu_parts=3),
}
STRATEGIES: tuple[StrategyName, ...] = ("serial", "merged", "interleaved")


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_placement_and_no_schedule_changes_a_token(folder: Path, strategy: StrategyName, world: str) -> None:
    target, draft = opened(folder, "mixtral"), opened(folder, "mistral", 2)
    requests = runs.prompts(7, 6, VOCAB, longest=80, new=16)
    plan = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model,
        world=WORLDS[world],
        strategy=strategy,
        gamma=3,
        batch=2,
        verify_micro_batches=2,
        prefill_micro_batches=2,
    )
    got, _ = runs.execute(plan, target, requests, draft=draft)
    assert got == reference(folder, "mixtral", 1, "float32", tuple(requests))


FAMILIES = ("llama", "llama3-rope", "tied", "mistral-window", "mixtral", "qwen2-window", "qwen3", "qwen3_moe")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_dtype_with_prompts_of_1_to_300_tokens(folder: Path, family: str, dtype: str) -> None:
    target = opened(folder, family, 1, dtype)
    requests = runs.prompts(3, 5, VOCAB, new=20)
    plan = runs.plan(target.architecture.model, gamma=3, batch=3, refill=True)
    got, _ = runs.execute(plan, target, requests)
    assert got == reference(folder, family, 1, dtype, tuple(requests))


@pytest.mark.parametrize("gamma", range(9))
def test_every_draft_length_with_generations_longer_than_the_prompts(folder: Path, gamma: int) -> None:
    target, draft = opened(folder, "mixtral"), opened(folder, "llama", 3)
    requests = runs.prompts(gamma, 4, VOCAB, longest=12, new=48)
    plan = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=gamma)
    got, _ = runs.execute(plan, target, requests, draft=draft if gamma else None)
    assert got == reference(folder, "mixtral", 1, "float32", tuple(requests))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["right", "wrong", "random", "ngram"])
def test_every_draft_for_eight_seeds(folder: Path, kind: str, seed: int) -> None:
    """A draft that is the target itself, its opposite (another head), an unrelated family, and none at all."""
    target = opened(folder, "mixtral", seed + 10)
    draft = {
        "right": lambda: target,
        "wrong": lambda: opposite(folder, seed + 10),
        "random": lambda: opened(folder, "qwen2", seed + 10),
        "ngram": lambda: None,
    }[kind]()
    requests = runs.prompts(seed, 5, VOCAB, longest=40, new=16)
    plan = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model if draft else None,
        gamma=4,
        batch=3,
        strategy=STRATEGIES[seed % 3],
    )
    got, job = runs.execute(plan, target, requests, draft=draft)
    assert got == reference(folder, "mixtral", seed + 10, "float32", tuple(requests))
    if kind == "right":
        assert job.batches.acceptance.rate == 1.0
    if kind == "wrong":
        assert job.batches.acceptance.accepted == 0


def opposite(folder: Path, seed: int) -> Checkpoint:
    """The same model with the rows of its head negated: it never agrees with itself."""
    directory = folder / f"opposite-{seed}"
    if not directory.exists():
        model = checkpoints.build("mixtral", seed)
        with torch.no_grad():
            model.lm_head.weight.neg_()
        model.save_pretrained(directory)
    return open_checkpoint(directory)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "policy",
    [
        {"batch": 1},
        {"batch": 7},
        {"batch": 2, "refill": True},
        {"batch": 7, "prefill_batch": 2},
        {"batch": 7, "verify_micro_batches": 3, "prefill_micro_batches": 4},
        {"batch": 4, "ring_slots": 1},
        {"batch": 4, "ring_slots": 5},
        {"batch": 4, "expert_fetch": "routed"},
        {"batch": 4, "draft_policy": DraftPolicy("cpu", "none", 2)},
        {"batch": 4, "draft_policy": DraftPolicy("cpu", "ram", 1, waits=True)},
    ],
    ids=str,
)
def test_no_batch_ring_or_micro_batch_changes_a_token(folder: Path, policy: dict[str, object], dtype: str) -> None:
    target, draft = opened(folder, "mixtral", 1, dtype), opened(folder, "mistral", 1, dtype)
    requests = runs.prompts(11, 7, VOCAB, longest=50, new=14)
    plan = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=2, **policy)  # type: ignore[arg-type]
    got, _ = runs.execute(plan, target, requests, draft=draft)
    assert got == reference(folder, "mixtral", 1, dtype, tuple(requests))


@pytest.mark.parametrize(
    "policy", [DraftPolicy("gpu", "ram", 2), DraftPolicy("gpu", "vram", 1), DraftPolicy("cpu", "ram", 3)]
)
@pytest.mark.parametrize("waits", [False, True])
def test_no_way_of_drafting_beside_a_gpu_changes_a_token(folder: Path, policy: DraftPolicy, waits: bool) -> None:
    target, draft = opened(folder, "mixtral"), opened(folder, "mistral", 2)
    requests = runs.prompts(5, 6, VOCAB, longest=40, new=12)
    plan = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model,
        world=WORLDS["pinned"],
        strategy="interleaved",
        gamma=3,
        batch=3,
        draft_policy=DraftPolicy(policy.processor, policy.kv, policy.micro_batch, waits),
    )
    got, job = runs.execute(plan, target, requests, draft=draft)
    assert got == reference(folder, "mixtral", 1, "float32", tuple(requests))
    assert job.drafts is not None
    assert job.drafts.under_way == {}


def test_a_tail_computes_elsewhere_and_changes_no_token(folder: Path) -> None:
    target = opened(folder, "mixtral")
    model = target.architecture.model
    requests = [
        Request(i, str(i), r.prompt, 4 + 5 * i, eos=r.eos) for i, r in enumerate(runs.prompts(2, 5, VOCAB, longest=30))
    ]
    world = WORLDS["pinned"]
    plan = runs.plan(model, world=world, gamma=2, batch=5)
    on_cpu = runs.placement(model, World(gpu=True, attention="pinned", ffn="pinned", kv="vram", cpu_parts=4))
    tailed = replace(plan, decision=change(plan.decision, tails=(Tail(3, on_cpu),)))
    got, job = runs.execute(tailed, target, requests)
    assert got == reference(folder, "mixtral", 1, "float32", tuple(requests))
    assert {span.stream for span in job.engine.timeline().spans if "/ffn." in span.name} == {"gpu", "cpu"}


LATE = {
    "disk": ("disk", "cpu", "cpu.draft"),
    "disk-to-gpu": ("disk", "h2d", "h2d.act", "gpu", "gpu.draft"),
    "visiting-kv": ("h2d.kv", "d2h", "gpu"),
    "one-visiting-kv": ("h2d.kv", "d2h", "gpu"),
    "cpu-attention": ("cpu", "d2h", "h2d.act"),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("world", "late"), [(world, late) for world, streams in LATE.items() for late in streams])
def test_poisoned_slots_and_a_stream_that_falls_behind_change_no_token(
    folder: Path, strategy: StrategyName, world: str, late: str
) -> None:
    """Requests of one token to twelve, places that are taken again, and drafts whose caches visit the GPU."""
    target, draft = opened(folder, "mixtral"), opened(folder, "mistral", 2)
    model = target.architecture.model
    requests = [replace(r, max_new_tokens=1 + 4 * (r.index % 4)) for r in runs.prompts(3, 6, VOCAB, longest=20)]
    # Where the draft's caches go back too, they hold everybody up who would overtake the target's.
    kv: Literal["vram", "ram"] = "vram" if world == "one-visiting-kv" else "ram"
    drafting = DraftPolicy("gpu", kv, 1) if world != "disk" else None
    plan = runs.plan(
        model,
        draft=draft.architecture.model,
        world=WORLDS["visiting-kv" if world == "one-visiting-kv" else world],
        strategy=strategy,
        gamma=2,
        batch=2,
        refill=True,
        draft_policy=drafting,
    )
    if world == "one-visiting-kv":
        resident = runs.placement(model, World(gpu=True, attention="vram", ffn="pinned"))
        plan = replace(plan, decision=change(plan.decision, layers=(resident[0], plan.decision.layers[1])))
    delay = 0.03 if late == "d2h" else 0.004  # what goes back is late only if it is by a whole round
    got, _ = runs.execute(plan, target, requests, draft=draft, poison=True, chaos=Chaos(7, delay, late))
    assert got == reference(folder, "mixtral", 1, "float32", tuple(requests))


def test_that_test_catches_a_ring_that_does_not_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: loads no longer wait for the last users of their slot."""
    monkeypatch.setattr(Ring, "free", lambda ring: ())
    target = opened(folder, "mixtral")
    requests = runs.prompts(0, 4, VOCAB, longest=30, new=8)
    plan = runs.plan(target.architecture.model, world=WORLDS["disk"], batch=4)
    with pytest.raises((NonFiniteError, KeyError)):
        runs.execute(plan, target, requests, poison=True, chaos=Chaos(1, 0.001))


@pytest.mark.parametrize("family", [*FAMILIES, "mistral", "qwen2"])
def test_every_family_says_what_transformers_says(folder: Path, family: str) -> None:
    """Nine seeds, each with a draft length and a draft of its own, prompts of 1, 300 and some tokens in between."""
    drafts = [None, "llama", family, None, "mixtral", "qwen3", family, "mistral", "qwen2"]
    for seed, kind in enumerate(drafts):
        target = opened(folder, family, 20 + seed)
        draft = opened(folder, kind, 20 + seed) if kind and seed else None
        requests = runs.prompts(seed, 3, VOCAB, new=12)
        plan = runs.plan(
            target.architecture.model,
            draft=draft.architecture.model if draft else None,
            gamma=seed,
            strategy=STRATEGIES[seed % 3],
            batch=2,
        )
        got, _ = runs.execute(plan, target, requests, draft=draft)
        assert got == generated(checkpoints.build(family, 20 + seed), requests)


def generated(model: PreTrainedModel, requests: list[Request]) -> list[list[int]]:
    """What transformers gives for each request alone."""
    outputs = []
    for request in requests:
        ids = torch.tensor([request.prompt])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        outputs.append(whole[0, len(request.prompt) :].tolist())
    return outputs
