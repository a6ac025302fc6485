"""Every answer has its picture from Python; plans run and are compared from there, too."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import specsim
from specsim.errors import InputError, UnknownNameError
from tests.specsim import plans


def title(answer: Any, view: str = "timeline") -> str:
    return str(specsim.draw(answer, view).texts[0].get_text())


@pytest.mark.parametrize(
    ("view", "begins"), [("timeline", "One round: "), ("memory", "Memory: "), ("roofline", "Roofline: ")]
)
def test_a_plan_has_three_pictures(view: str, begins: str) -> None:
    assert title(plans.plan(gpu=True), view).startswith(begins)


def test_a_sweep_has_a_picture() -> None:
    swept = specsim.sweep({"gamma": [0]}, jobs=1, gpu="rtx4090", target="llama-3.2-3b", workload="chat", requests=4)
    assert title(swept) == "Throughput over gamma"


def test_what_has_no_picture_is_told_so() -> None:
    with pytest.raises(InputError, match="str has no picture"):
        specsim.draw("plan.yaml")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(UnknownNameError, match="memroy"):
        specsim.draw(plans.plan(gpu=True), "memroy")


def test_run_gives_the_executor_paths_and_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setitem(sys.modules, "executor.run", SimpleNamespace(run=lambda plan, options: (plan, options)))
    plan = plans.plan(gpu=False)
    ran, options = specsim.run(plan, target="big", draft="small", prompts="p.jsonl", out=tmp_path, limit=3)
    assert ran is plan
    assert (options.target, options.draft, options.prompts) == (Path("big"), Path("small"), Path("p.jsonl"))
    assert (options.out, options.limit) == (tmp_path, 3)


def test_a_plan_without_its_run_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(str(tmp_path / "metrics.json"))):
        specsim.validate(plans.plan(gpu=False), tmp_path)
