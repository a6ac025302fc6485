"""`run` from plan file to output files, and every way in which it refuses or fails: one line, finished outputs kept."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from executor.checkpoint.checkpoint import open_checkpoint
from executor.checkpoint.read import Reader
from executor.decoder.numerics import EXACT
from executor.decoder.resident import generate_greedy, load_resident
from executor.desk import Desk
from executor.options import RunOptions
from executor.preflight import REST_BYTES, files_bytes
from executor.requests import Request
from executor.run import run
from executor.tasks import feedforward, table
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.hardware import Fact
from specsim.memory import peak_items, totals
from specsim.timeline.trace import read_trace
from tests.executor import checkpoints, runs
from tests.executor.runs import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    checkpoints.make("mixtral", folder / "target", seed=1, max_shard_size=40_000)
    checkpoints.make("mistral", folder / "draft", seed=2)
    lines = [{"id": f"r{i}", "input_ids": [3 + i, 4, 5]} for i in range(5)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def plan(folder: Path) -> Plan:
    target, draft = open_checkpoint(folder / "target"), open_checkpoint(folder / "draft")
    return runs.plan(
        target.architecture.model, draft=draft.architecture.model, gamma=2, batch=2, prompt=3, output=6, requests=5
    )


def options(folder: Path, out: Path, **changes: Any) -> RunOptions:
    given: dict[str, Any] = {
        "target": folder / "target",
        "draft": folder / "draft",
        "prompts": folder / "prompts.jsonl",
        "out": out,
    }
    return RunOptions(**given | changes)


def expected(folder: Path, new: int = 6) -> list[list[int]]:
    model = load_resident(folder / "target", EXACT)
    return [generate_greedy(model, [3 + i, 4, 5], new) for i in range(5)]


def outputs(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "outputs.jsonl").read_text().splitlines()]


def test_a_run_leaves_outputs_metrics_and_both_timelines(folder: Path, plan: Plan, tmp_path: Path) -> None:
    result = run(plan, options(folder, tmp_path / "out"))
    found = sorted(outputs(tmp_path / "out"), key=lambda line: line["id"])
    assert [line["output_ids"] for line in found] == expected(folder)
    assert [line["useful_tokens"] for line in found] == [len(ids) for ids in expected(folder)]
    assert result.metrics.useful_tokens == sum(map(len, expected(folder)))
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["tokens_per_second"] == metrics["useful_tokens"] / metrics["seconds"]
    assert metrics["bytes_moved"]["disk"] > 0
    traced = read_trace(tmp_path / "out/trace.json")
    measured, predicted = ({span.name for span in traced[name].spans} for name in ("measured", "predicted"))
    assert predicted <= measured, "every task of the prediction was run, under the same name"
    ahead = {name.split("/")[0] for name in measured - predicted}
    assert all(name.startswith(("verify.", "draft.")) for name in ahead), "only what was lowered ahead is not predicted"


def test_the_files_take_no_more_than_was_asked_of_the_disk(folder: Path, plan: Plan, tmp_path: Path) -> None:
    run(plan, options(folder, tmp_path / "out"))
    requests = [Request(i, f"r{i}", (3 + i, 4, 5), 6) for i in range(5)]
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "out").iterdir()}
    asked = files_bytes(plan, requests, text=False)
    assert sum(sizes.values()) < asked
    assert sizes["trace.json"] > (asked - REST_BYTES) / 5, "and not ten times as much"


def test_a_machine_that_has_changed_is_refused_or_used_anyway(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = plan.case.machine
    facts = (Fact("host.cores", "4096", "measured", "once"),)
    larger = replace(plan, case=plan.case.on(replace(machine, host=replace(machine.host, cores=4096), facts=facts)))
    told = refused(larger, options(folder, tmp_path / "out"))
    assert told.startswith("run: this is not the machine of the plan: it had 4096 cores, and this process may use ")
    assert not (tmp_path / "out").exists()
    run(larger, options(folder, tmp_path / "out", anyway=True))
    assert len(outputs(tmp_path / "out")) == 5


def test_the_disk_is_read_as_the_plans_machine_says(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    def reader(**how: Any) -> Reader:
        made.append(how)
        return Reader(**how)

    monkeypatch.setattr("executor.opening.Reader", reader)
    machine = plan.case.machine
    deeper = replace(machine, disk=replace(machine.disk, queue_depth=3, block_bytes=8192))
    run(replace(plan, case=replace(plan.case, machine=deeper)), options(folder, tmp_path / "out"))
    found = sorted(outputs(tmp_path / "out"), key=lambda line: line["id"])
    assert [line["output_ids"] for line in found] == expected(folder)
    assert [(how["queue_depth"], how["block_bytes"]) for how in made] == [(3, 8192)]


def test_the_peak_of_each_memory_is_at_most_what_was_planned(folder: Path, plan: Plan, tmp_path: Path) -> None:
    result = run(plan, options(folder, tmp_path / "out"))
    planned = max(memories["ram"] for memories in totals(peak_items(plan.case, plan.decision)).values())
    # The plan counts the most that slots of a ring may take, and caches with candidates that no request has room for.
    assert planned * 0.6 < result.metrics.peak_bytes["ram"] <= planned


def test_options_change_what_is_asked_for(folder: Path, plan: Plan, tmp_path: Path) -> None:
    run(plan, options(folder, tmp_path / "out", max_new_tokens=2, limit=3, numerics="fast"))
    assert [len(line["output_ids"]) for line in outputs(tmp_path / "out")] == [2, 2, 2]


def refused(plan: Plan, asked: RunOptions) -> str:
    before = set(threading.enumerate())
    with pytest.raises(InputError) as caught:
        run(plan, asked)
    assert {t for t in threading.enumerate() if t.name.startswith("specsim")} <= before, "no thread is left behind"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_model_than_the_planned_one(folder: Path, plan: Plan, tmp_path: Path) -> None:
    told = refused(plan, options(folder, tmp_path / "out", target=folder / "draft"))
    assert told == f"{folder}/draft: family of the target is mistral here and mixtral in the plan; " + (
        "give the checkpoint that was planned for"
    )
    told = refused(plan, options(folder, tmp_path / "out2", draft=folder / "target"))
    assert "family of the draft is mixtral here and mistral in the plan" in told


def test_a_missing_shard_is_told_before_anything_is_made(folder: Path, plan: Plan, tmp_path: Path) -> None:
    broken = tmp_path / "target"
    broken.mkdir()
    for file in (folder / "target").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    shard = sorted(broken.glob("*.safetensors"))[0]
    shard.unlink()
    told = refused(plan, options(folder, tmp_path / "out", target=broken))
    assert shard.name in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("world", [World(ffn="ram"), World(ffn="disk")], ids=["loading", "streaming"])
def test_a_shard_that_shrinks_after_it_was_opened(
    folder: Path, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "target"
    checkpoints.make("mixtral", broken, seed=1)
    plan = runs.plan(open_checkpoint(broken).architecture.model, world=world, batch=2, prompt=3, output=6)
    real = Reader.read if world.ffn == "disk" else Reader.read_pieces

    def truncate(self: Reader, *args: Any) -> int:
        os.truncate(broken / "model.safetensors", 9000)
        return real(self, *args)

    monkeypatch.setattr(Reader, real.__name__, truncate)
    told = refused(plan, options(folder, tmp_path / "out", target=broken, draft=None))
    assert f"{broken}/model.safetensors: has become too short" in told


def test_weights_that_are_not_numbers(folder: Path, plan: Plan, tmp_path: Path) -> None:
    model = checkpoints.build("mixtral", 1)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[3, 3] = float("nan")
    model.save_pretrained(tmp_path / "target")
    told = refused(plan, options(folder, tmp_path / "out", target=tmp_path / "target"))
    assert told.startswith("NaN or infinity in the logits of request 0")


def test_a_budget_too_small_for_the_ring(folder: Path, plan: Plan, tmp_path: Path) -> None:
    small = replace(plan, case=plan.case.on(replace(plan.case.machine, ram_budget_bytes=50_000.0)))
    told = refused(small, options(folder, tmp_path / "out"))
    assert told.startswith("ram: ")
    assert "exceeds the budget of 48.8 KiB" in told


def test_a_full_disk_keeps_the_outputs_that_fitted(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    real = os.write

    def write(file: int, data: Any) -> int:
        nonlocal written
        if bytes(data[:5]) == b'{"id"':
            written += 1
            if written >= 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    told = refused(plan, options(folder, tmp_path / "out"))
    assert "outputs.jsonl: cannot be written: No space left on device; it keeps 2 outputs" in told
    assert [line["output_ids"] for line in outputs(tmp_path / "out")] == expected(folder)[:2]


def break_off(patch: pytest.MonkeyPatch, error: BaseException, *, once: bool = False) -> None:
    """Batches of two: the second wave's prefill fails, once or again and again."""
    real, failed = feedforward.ffn, []

    def fail(c: Any, name: Any, task: Any) -> int:
        if name.phase == "prefill" and name.round >= 1 and not (once and failed):
            failed.append(name)
            raise error
        return real(c, name, task)

    patch.setitem(table.TARGET, "ffn", fail)


def test_an_error_in_mid_run_keeps_what_has_finished(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(monkeypatch, InputError("the disk is on fire"))
    assert refused(plan, options(folder, tmp_path / "out")) == "the disk is on fire"
    assert [line["id"] for line in outputs(tmp_path / "out")] == ["r0", "r1"]


def test_out_of_memory_goes_on_with_less_at_once_and_says_so(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_off(monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."), once=True)
    result = run(plan, options(folder, tmp_path / "out"))
    told = "out of memory in prefill: going on with 1 of 2 sequences at a time in prefill"
    assert capsys.readouterr().err == f"specsim: {told}\n"
    assert result.metrics.shrunk == (told,)
    assert json.loads((tmp_path / "out/metrics.json").read_text())["shrunk"] == [told]
    found = sorted(outputs(tmp_path / "out"), key=lambda line: line["id"])
    assert [line["output_ids"] for line in found] == expected(folder)


def test_out_of_memory_with_the_least_at_once_is_one_line(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(monkeypatch, MemoryError("cannot allocate 3 GiB"))
    told = refused(plan, options(folder, tmp_path / "out"))
    assert told.startswith("run: out of memory: cannot allocate 3 GiB; plan again with a smaller --ram")
    assert [line["id"] for line in outputs(tmp_path / "out")] == ["r0", "r1"]


def test_out_of_memory_while_loading_is_one_line(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("executor.checkpoint.read.mmap.mmap", fail)
    told = refused(plan, options(folder, tmp_path / "out"))
    assert told.startswith("run: out of memory: [Errno 12] Cannot allocate memory; plan again with a smaller --ram")


def test_an_interrupt_keeps_what_has_finished(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Desk.tick

    def tick(self: Desk, job: Any) -> None:
        real(self, job)
        if self.writer.written == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Desk, "tick", tick)
    with pytest.raises(KeyboardInterrupt):
        run(plan, options(folder, tmp_path / "out"))
    assert [line["output_ids"] for line in outputs(tmp_path / "out")] == expected(folder)[:2]
