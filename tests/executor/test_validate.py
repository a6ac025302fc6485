"""A link that is really slower than planned is named by what was measured, through the whole of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as change

from executor.checkpoint.checkpoint import open_checkpoint
from executor.options import RunOptions
from executor.run import run
from specsim.simulator.job import simulate_job
from specsim.validation.record import read_run
from specsim.validation.throughput import compare
from specsim.validation.verdict import sentence, terms
from tests.executor import checkpoints, runs
from tests.executor.runs import World
from tests.specsim import stories

#: what the plan supposes, and what the link is held to: a pass then waits for it for longer than for all else by far
PLANNED, HELD = 100e6, 0.5e6


def test_a_throttled_link_is_named(tmp_path: Path) -> None:
    checkpoints.make("mixtral", tmp_path / "target", seed=1)
    lines = [{"input_ids": [3 + i, 4, 5]} for i in range(2)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    world = World(gpu=True, attention="pinned", ffn="pinned")
    target = open_checkpoint(tmp_path / "target").architecture.model
    plan = runs.plan(target, world=world, batch=2, prompt=3, output=3, requests=2)
    real = stories.processor(flops=1e9, bandwidth=1e9, overhead=1e-3)  # somewhat like an emulated GPU on a tiny model
    plan = replace(plan, case=replace(plan.case, machine=stories.machine(gpu=real, cpu=real, link=PLANNED)))
    planned = simulate_job(plan.case, plan.decision).tokens_per_second
    plan = replace(plan, predicted=change(plan.predicted, tokens_per_second=planned))
    options = RunOptions(
        tmp_path / "target", tmp_path / "prompts.jsonl", tmp_path / "out", emulate_gpu=True, throttle={"link": HELD}
    )
    run(plan, options)
    measured, timelines = read_run(tmp_path / "out")
    found = compare(plan, measured, timelines["predicted"], timelines["measured"])
    assert sentence(found).startswith("link bandwidth: weights coming over the link took ")
    assert terms(found)[0].share > 0.5 * found.error
    assert found.machine.kinds[0].ratio is not None
    assert found.machine.kinds[0].ratio > 0.5 * PLANNED / HELD
