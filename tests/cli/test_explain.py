"""`specsim explain`: what bounds a plan and what would speed it up, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specsim.planfile import write_plan
from specsim.planner import anew as anew_module
from specsim.planner import explain as explain_module
from tests.specsim import plans
from tests.specsim.plans import call


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A plan without a GPU, and re-planning that looks at one policy each."""
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    monkeypatch.setattr(explain_module, "STEPS", 1)
    write_plan(plans.plan(gpu=False), tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


def test_json_has_the_sentence_the_rates_and_every_sensitivity(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "explain", plan, "--format", "json")
    assert (status, err) == (0, "")
    answer = json.loads(out)
    keys = ["sentence", "tokens_per_second", "plain_tokens_per_second", "break_even_acceptance", "sensitivities"]
    assert list(answer) == keys
    assert {row["change"] for row in answer["sensitivities"]} == {
        "2x CPU and DRAM bandwidth",
        "2x RAM",
        "2x disk bandwidth",
        "acceptance -0.1",
        "acceptance +0.1",
    }
    for row in answer["sensitivities"]:
        assert list(row) == ["change", "tokens_per_second", "gain"]
        assert row["gain"] == row["tokens_per_second"] / answer["tokens_per_second"] - 1


def test_text_begins_with_what_bounds_the_plan(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "explain", plan)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{plans.plan(gpu=False).predicted.bottleneck}: 2x ")
    assert lines[2].split() == ["change", "(re-planned)", "tokens/s", "gain"]
    assert sum(line.startswith("without speculation: ") for line in lines) == 1
