"""Ranks that torchrun starts: the tokens of one process, a lost rank that is named, and what each piece promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from executor.checkpoint.checkpoint import open_checkpoint
from executor.options import RunOptions
from executor.run import run
from specsim.answer import Plan
from specsim.hardware import Peer
from specsim.planfile import write_plan
from specsim.timeline.trace import read_trace
from tests.conftest import ROOT
from tests.executor import checkpoints, runs
from tests.executor.runs import World

OPTIONS = ("--target", "target", "--draft", "draft", "--prompts", "prompts.jsonl", "--threads", "1")
DISK = World()
SAMPLED = ("--temperature", "0.9", "--top-k", "20", "--seed", "7")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    checkpoints.make("mixtral", folder / "target", seed=1, num_hidden_layers=5)
    checkpoints.make("mistral", folder / "draft", seed=2)
    requests = runs.prompts(5, 7, 96, longest=40, new=10)
    lines = [{"id": request.id, "input_ids": list(request.prompt)} for request in requests]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def planned(folder: Path, stages: int, world: World = DISK, **policy: Any) -> Plan:
    target, draft = (open_checkpoint(folder / name).architecture.model for name in ("target", "draft"))
    numbers: dict[str, Any] = {"gamma": 2, "batch": 2, "prompt": 40, "output": 10, "requests": 7, "refill": True}
    plan = runs.plan(target, draft=draft, world=world, stages=stages, **numbers | {"strategy": "interleaved"} | policy)
    if stages == 1:
        return plan
    machine = replace(plan.case.machine, devices=stages, node_devices=stages, peer=Peer(1e9, 1e-5))
    return replace(plan, case=replace(plan.case, machine=machine))


def launched(folder: Path, plan: Plan, out: str, *options: str) -> subprocess.Popen[str]:
    """`specsim run` of a plan on as many ranks as it has stages."""
    write_plan(plan, folder / f"{out}.yaml")
    return torchrun(folder, plan.decision.policy.stages, f"{out}.yaml", *OPTIONS, "-o", out, *options)


def torchrun(folder: Path, ranks: int, *arguments: str) -> subprocess.Popen[str]:
    """`specsim run` on so many ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["-m", "specsim", "run", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def outputs(out: Path) -> dict[str, list[int]]:
    lines = map(json.loads, (out / "outputs.jsonl").read_text().splitlines())
    return {line["id"]: line["output_ids"] for line in lines}


def alone(folder: Path, plan: Plan, out: str, **options: Any) -> dict[str, list[int]]:
    """What one process gives."""
    named = {name: folder / name for name in ("target", "draft")} | {"prompts": folder / "prompts.jsonl"}
    run(plan, RunOptions(**named, out=folder / out, threads=1, **options))
    return outputs(folder / out)


def test_two_ranks_give_the_tokens_of_one(folder: Path) -> None:
    """Sampled, in two waves, with caches that have not room enough for all in flight: who has to wait is restored."""
    plan = planned(folder, 2, world=World(attention="disk"), refill=False, kv_positions=110)
    process = launched(folder, plan, "two", *SAMPLED, "--format", "json")
    told, complaints = process.communicate()
    assert process.returncode == 0, complaints
    expected = alone(folder, planned(folder, 1), "one", temperature=0.9, top_k=20, seed=7)
    assert outputs(folder / "two") == expected
    metrics = json.loads(told)  # of the first rank alone
    rows = metrics["bytes_moved"]
    assert rows["peer"] > 0 < rows["peer@1"]
    assert 0.5 < rows["disk"] / rows["disk@1"] < 2.0, "each rank reads its own layers"
    traced = read_trace(folder / "two/trace.json")
    measured, predicted = ({(s.name, s.stream) for s in traced[name].spans} for name in ("measured", "predicted"))
    assert predicted <= measured, "every task of the prediction was run, on the stream of its device"


@pytest.mark.slow
def test_four_ranks_give_the_tokens_of_one(folder: Path) -> None:
    """Greedily, over stages of one layer and one of two, four batches in flight."""
    process = launched(folder, planned(folder, 4, batches=4, batch=1), "four")
    _, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert outputs(folder / "four") == alone(folder, planned(folder, 1), "greedy")


def test_a_rank_that_is_killed_ends_the_run_and_is_named(folder: Path) -> None:
    process = launched(folder, planned(folder, 2), "killed", "--throttle", "disk=400kB/s")
    try:
        outputs_file = folder / "killed/outputs.jsonl"
        while not (outputs_file.exists() and outputs_file.stat().st_size):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        children = psutil.Process(process.pid).children()
        (victim,) = (child for child in children if child.environ().get("RANK") == "1")
        victim.kill()
        _, complaints = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode != 0
    told = [line for line in complaints.splitlines() if line.startswith("specsim:")]
    again = "torchrun --nproc-per-node 2 -m specsim run --resume killed"
    line = f"specsim: error: rank 1 is gone: its connection was closed; go on with: {again}"
    assert told == [line], complaints
    expected = alone(folder, planned(folder, 1), "whole")
    kept = outputs(folder / "killed")
    assert 0 < len(kept) < len(expected)
    assert all(expected[name] == ids for name, ids in kept.items())
    resumed = torchrun(folder, 2, "--resume", "killed")
    _, complaints = resumed.communicate()
    assert resumed.returncode == 0, complaints
    assert outputs(folder / "killed") == expected


def test_an_error_of_all_ranks_is_told_once(folder: Path) -> None:
    write_plan(planned(folder, 3), folder / "three.yaml")
    _, complaints = torchrun(folder, 2, "three.yaml", *OPTIONS, "-o", "three").communicate()
    told = [line for line in complaints.splitlines() if line.startswith("specsim:")]
    hint = "start it as torchrun --nproc-per-node 3 -m specsim run ..."
    assert told == [f"specsim: error: run: the plan has 3 stages, and 2 ranks run; {hint}"]
