"""`specsim validate --matrix`: what is left is run, what is done is kept, and the scores are told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from specsim import machines
from specsim.errors import InfeasibleError
from specsim.hardware import Machine
from specsim.validation.configurations import FIT, SHAPES, TEST, Configuration
from tests.specsim import plans

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for models, measurement and runs, which are 10 % slower than planned; what was done, in order."""
    ran: list[str] = []

    def make(shape: Any, folder: Path, say: Any) -> None:
        (folder / "target").mkdir(parents=True, exist_ok=True)

    def run(configuration: Configuration, machine: Machine, models: Path, folder: Path) -> None:
        ran.append(configuration.name)
        speed = float(configuration.batch)
        found = {
            "tokens_per_second": {"planned": 1.1 * speed, "measured": speed},
            "interval": {"low": speed, "high": 1.3 * speed},
            "sentence": "a reason",
        }
        folder.mkdir(parents=True)
        (folder / "validation.json").write_text(json.dumps(found))

    def measure(way: str, models: Path, path: Path) -> Machine:
        ran.append(f"measure for {way}")
        return machines.assemble(machine="desktop-cpu")

    monkeypatch.chdir(tmp_path)
    stubs = {
        "pairs": SimpleNamespace(make_models=make),
        "runs": SimpleNamespace(run_configuration=run),
        "machines": SimpleNamespace(measured_machine=measure),
    }
    for name, stub in stubs.items():
        monkeypatch.setitem(sys.modules, f"executor.validation.{name}", stub)
    return ran


def test_every_configuration_is_run_once_and_scored(tmp_path: Path, ran: list[str], capsys: Capture) -> None:
    status, out, err = plans.call(capsys, "validate", "--matrix", "-o", "kept")
    assert (status, err) == (0, "")
    disk, link = ([c.name for c in TEST if c.way == way] for way in ("disk", "link"))
    assert ran == ["measure for disk", *disk, "measure for link", *link]
    assert f"{len(TEST)} configurations: median error 10.0%, p90 10.0%, rank correlation 1.000; intervals of 80%" in out
    assert out.count("a reason") == 3
    kept = json.loads((tmp_path / "kept" / "matrix.json").read_text())
    assert kept["scores"]["coverage"] == 1.0
    assert (tmp_path / "kept" / "matrix.csv").read_text().count("\n") == len(TEST) + 1
    assert (tmp_path / "kept" / "matrix.png").exists()


def test_an_interrupted_matrix_goes_on(tmp_path: Path, ran: list[str], capsys: Capture) -> None:
    plans.call(capsys, "validate", "--matrix", "--fit")
    missing = FIT[3]
    (folder,) = (tmp_path / "out" / "matrix" / "runs").glob(f"*/{missing.name}")
    (folder / "validation.json").unlink()
    folder.rmdir()
    ran.clear()
    status, out, _ = plans.call(capsys, "validate", "--matrix", "--fit", "--format", "csv")
    assert (status, ran) == (0, ["measure for disk", missing.name])
    assert out.splitlines()[0] == "configuration,planned,low,high,measured,error,why"
    assert json.loads(plans.call(capsys, "validate", "--matrix", "--fit", "--format", "json")[1])["level"] == 0.8


def test_runs_of_other_models_of_the_same_name_are_not_taken_for_these(
    ran: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans.call(capsys, "validate", "--matrix", "--fit")
    ran.clear()
    monkeypatch.setitem(SHAPES, "few", replace(SHAPES["few"], layers=SHAPES["few"].layers + 1))
    plans.call(capsys, "validate", "--matrix", "--fit")
    assert [name for name in ran if not name.startswith("measure")] == [c.name for c in FIT if c.shape == "few"]


def test_what_does_not_fit_is_named(ran: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> None:
        raise InfeasibleError("no plan fits: ram is short")

    monkeypatch.setattr(sys.modules["executor.validation.runs"], "run_configuration", run)
    status, out, err = plans.call(capsys, "validate", "--matrix")
    assert (status, out) == (2, "")
    assert err == f"specsim: error: {TEST[0].name}: no plan fits: ram is short\n"
