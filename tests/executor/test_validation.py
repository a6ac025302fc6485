"""A configuration from nothing to its comparison, small enough for a second, and the machines that they run on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from executor.validation import runs
from executor.validation.machines import compute_threads, machine_of, measured_machine
from executor.validation.pairs import make_models, write_prompts
from specsim import machines
from specsim.errors import InputError
from specsim.hardware import Fact
from specsim.units import MiB
from specsim.validation.configurations import PROMPT_TOKENS, Configuration, Shape
from tests.specsim import stories

TINY = Shape(64, 2, 128, 4, 2, 4, 2, 1, 0.05, vocab=256)
REAL = stories.processor(flops=1e10, bandwidth=1e10, overhead=1e-4)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair") / "tiny"
    make_models(TINY, folder, lambda _: None)
    return folder


def test_models_are_made_once_and_anew_where_half_was_made(models: Path) -> None:
    weights = models / "target" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    make_models(TINY, models, lambda _: None)
    assert weights.stat().st_mtime_ns == made
    (models / "target" / "config.json").unlink()
    make_models(TINY, models, lambda _: None)
    assert weights.stat().st_mtime_ns > made


def test_prompts_are_of_the_length_that_is_planned_for(tmp_path: Path) -> None:
    write_prompts(TINY, 3, tmp_path / "prompts.jsonl", 5)
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [len(line["input_ids"]) for line in lines] == [PROMPT_TOKENS] * 3


def test_a_slow_disk_and_little_memory() -> None:
    measured = stories.machine(bare=True, disk=3e9)
    slow = machine_of(Configuration("few", "disk", 0.5, 0.7, "serial", 0, 1), measured, 100 * MiB)
    assert (slow.disk.rate(), slow.ram_budget_bytes) == (0.5e9, 70 * MiB)
    fast = machine_of(Configuration("few", "disk", 8, 0.7, "serial", 0, 1), measured, 100 * MiB)
    assert fast.disk.rate() == 3e9  # it cannot be held to more than it has


def test_an_emulated_gpu_is_the_cpu_and_its_facts_are_the_cpus() -> None:
    told = (Fact("host.bf16", "1", "measured", "spread 3%"), Fact("disk.bandwidth", "1", "measured", "spread 9%"))
    measured = replace(stories.machine(cpu=REAL, bare=True), facts=told)
    machine = machine_of(Configuration("few", "link", 2, 0.4, "serial", 0, 1), measured, 100 * MiB)
    assert machine.gpu is not None
    assert machine.gpu.processor == REAL
    assert machine.link is not None
    assert machine.link.rate(pinned=True) <= 2e9  # a copy may be slower still
    assert machine.vram_budget_bytes == 40 * MiB
    assert machine.host.processor.flops_per_s["bf16"] < 0.1 * REAL.flops_per_s["bf16"]
    assert [fact.field for fact in machine.facts] == ["gpu.bf16"]


def test_a_machine_is_measured_once_with_its_own_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def profile(command: Sequence[str], env: dict[str, str], **_: Any) -> Any:
        calls.append((command[2:5], env["OMP_NUM_THREADS"]))
        Path(command[-1]).write_text(yaml.safe_dump(machines.to_dict(machines.assemble(machine="desktop-cpu"))))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", profile)
    for _ in range(2):
        machine = measured_machine("link", tmp_path, tmp_path / "machine.yaml")
        assert machine.name == "desktop-cpu"
    assert calls == [(["specsim", "profile", "--disk-path"], str(compute_threads("link")))]
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 2, stderr="no room\n"))
    with pytest.raises(InputError, match="this machine cannot be measured: no room"):
        measured_machine("disk", tmp_path, tmp_path / "other.yaml")


def test_copies_over_a_link_have_a_core_of_their_own() -> None:
    assert compute_threads("link") == max(1, compute_threads("disk") - 1)


@pytest.mark.parametrize("way", ["disk", "link"])
def test_a_configuration_is_planned_run_and_compared(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setitem(runs.SHAPES, "tiny", TINY)
    monkeypatch.setattr(runs, "compute_threads", lambda _: 1)
    monkeypatch.setattr(runs, "MEASURED_REQUESTS", 8)
    monkeypatch.setattr(runs, "MEASURED_BATCH", 4)
    configuration = Configuration("tiny", way, 0.25, 4.0, "merged", 2, 1)  # type: ignore[arg-type]
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "outputs.jsonl").write_text("of a run that was interrupted\n")
    runs.run_configuration(configuration, stories.machine(cpu=REAL, bare=True, disk=1e9), models, folder)
    found = json.loads((folder / runs.DONE).read_text())
    assert found["strategy"] == "merged"
    assert found["gamma"] == 2
    assert found["interval"]["low"] < found["tokens_per_second"]["planned"] < found["interval"]["high"]
    assert len((folder / "outputs.jsonl").read_text().splitlines()) == 4


def test_what_a_pair_accepts_is_measured_once_on_prompts_that_no_configuration_has(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runs.SHAPES, "tiny", TINY)
    monkeypatch.setattr(runs, "MEASURED_REQUESTS", 8)
    monkeypatch.setattr(runs, "MEASURED_BATCH", 4)
    ran: list[tuple[Path, int]] = []
    really = runs.write_prompts

    def written(shape: Shape, count: int, path: Path, seed: int) -> None:
        ran.append((path.parent, seed))
        really(shape, count, path, seed)

    monkeypatch.setattr(runs, "write_prompts", written)
    (models / runs.ACCEPTANCE).unlink(missing_ok=True)
    machine = stories.machine(cpu=REAL, bare=True, disk=1e9)
    first, second = (Configuration("tiny", "disk", 0.25, 4.0, "serial", gamma, 1) for gamma in (1, 2))
    for configuration in (first, second):
        runs.run_configuration(configuration, machine, models, tmp_path / configuration.name)
    assert [folder for folder, _ in ran] == [models / "measured", tmp_path / first.name, tmp_path / second.name]
    assert len({seed for _, seed in ran}) == 3
    profile = yaml.safe_load((models / runs.ACCEPTANCE).read_text())
    shares, _ = profile["facts"]["acceptance"]
    assert len(shares) == runs.MEASURED_GAMMA
    assert profile["sources"]["run"]["n"] == 8
    found = json.loads((tmp_path / second.name / runs.DONE).read_text())
    assert found["acceptance"]["assumed"] == shares[:2]
    assert not (models / "measured").exists()
