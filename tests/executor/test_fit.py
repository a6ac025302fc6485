"""A plan that says it fits does: with budgets of just what it counts, every run goes through."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from executor.checkpoint.checkpoint import open_checkpoint
from executor.memory import WORKSPACES
from executor.requests import Request
from specsim.decision import DraftPolicy
from specsim.memory import peak_items, totals
from tests.executor import checkpoints, runs
from tests.executor.runs import World

BARE = (World(), World(ffn="ram"), World(attention="disk"), World(attention="disk", ffn="ram", part_bytes=20_000))
GPU = (
    World(gpu=True, attention="pinned", ffn="disk"),
    World(gpu=True, attention="vram", ffn="pageable", kv="ram"),
    World(gpu=True, attention="pinned", ffn="pinned", processor="cpu", cpu_parts=1),
    World(gpu=True, attention="disk", ffn="disk"),
)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_entered_is_at_most_what_was_planned(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    family = rng.choice(sorted(checkpoints.FAMILIES))
    odd = {"hidden_size": 4 * rng.randint(2, 20), "vocab_size": rng.randint(9, 90)}
    odd["intermediate_size"] = rng.randint(1, 99)
    dtype = rng.choice(("float32", "bfloat16"))
    shard = rng.choice((5_000, 40_000, "5GB"))
    target = open_checkpoint(checkpoints.make(family, tmp_path / "target", seed, dtype, max_shard_size=shard, **odd))
    world, gamma, prompt, new = rng.choice(BARE + GPU), rng.choice((0, 2)), rng.randint(1, 90), rng.randint(1, 8)
    draft = None
    if gamma:
        draft = open_checkpoint(checkpoints.make("qwen3", tmp_path / "draft", seed, dtype, **odd))
    batch = rng.randint(1, 4)
    micro = rng.randint(1, batch)
    made = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model if draft else None,
        world=world,
        strategy=rng.choice(("serial", "merged", "interleaved") if gamma else ("serial",)),
        gamma=gamma,
        batch=batch,
        prompt=prompt,
        output=new,
        requests=7,
        draft_policy=DraftPolicy(*rng.choice(_homes(world.gpu)), micro, waits=world.gpu and rng.random() < 0.5),
        ring_slots=rng.randint(2, 4),
        refill=rng.random() < 0.5,
        expert_fetch=rng.choice(("all", "routed")),
    )
    phases = peak_items(made.case, made.decision)
    planned = {
        memory: max(phase[memory] for phase in totals(phases).values()) for memory in made.case.machine.budgets()
    }
    machine = replace(made.case.machine, ram_budget_bytes=planned["ram"], vram_budget_bytes=planned.get("vram", 0.0))
    exact = replace(made, case=replace(made.case, machine=machine))
    requests = [Request(i, str(i), tuple(rng.choices(range(9), k=prompt)), new) for i in range(7)]
    _, job = runs.execute(exact, target, requests, draft=draft)
    for (memory, item), held in job.ledger.items.items():
        names = [item, "disk staging"] if (memory, item) == ("ram", "ring") and world.gpu else [item]
        names += ["pinned weights", "pageable weights"] if item == "weights" else []
        if item != WORKSPACES:
            assert held <= sum(phases["decode"][memory].get(name, 0.0) for name in names), (memory, item)
    assert all(job.ledger.peaks[memory] <= planned[memory] for memory in ("ram", *(["vram"] if world.gpu else [])))


def _homes(gpu: bool) -> list[tuple[str, str]]:
    """Processor and home of the cache, of drafts."""
    return (
        [("gpu", "vram"), ("gpu", "ram"), ("gpu", "none"), ("cpu", "ram")] if gpu else [("cpu", "ram"), ("cpu", "none")]
    )
