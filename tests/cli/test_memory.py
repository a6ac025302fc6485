"""`specsim memory`: what is printed, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from specsim import api
from specsim.case import Case
from specsim.whatif.budget import MemoryCurve
from tests.specsim import plans
from tests.specsim.plans import call, tiny

find = api.budget


@cache
def curve() -> MemoryCurve:
    return find(plans.case(), points=2)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan once for all tests."""

    def budget(asked: Case, *, keep: float, points: int, progress: Any) -> MemoryCurve:
        assert asked.acceptance is not None
        assert points == 2
        return replace(curve(), keep=keep)

    monkeypatch.setattr(api, "budget", budget)


@pytest.mark.usefixtures("known")
def test_it_prints_a_row_per_budget_and_what_speculation_adds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "memory.png"
    status, out, err = call(capsys, "memory", *tiny(tmp_path), "--points", "2", "--plot", str(picture))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["budget", "speculating", "without", "speed-up"]
    assert "speculation is" in out
    assert "What speculation adds to the plan for" in out
    assert any("candidate kv" in line for line in lines)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("known")
def test_programs_get_every_item_of_every_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "memory", *tiny(tmp_path), "--points", "2", "--keep", "0.9", "--format", "json")
    assert status == 0
    found = json.loads(out)
    assert (found["memory"], found["keep"]) == ("vram", 0.9)
    first = found["points"][0]
    held = max(sum(items["vram"].values()) for items in first["peak_items"].values())
    assert held <= first["budget_bytes"] * (1 + 1e-9)
    assert first["added_items"]["decode"]["vram"]["draft weights"] > 0
    assert found["keeps_bytes"] in [point["budget_bytes"] for point in found["points"]]
    status, out, _ = call(capsys, "memory", *tiny(tmp_path), "--points", "2", "--keep", "0.9", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["budget_bytes"]) for row in rows] == [point["budget_bytes"] for point in found["points"]]


def test_without_a_draft_there_is_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "memory", *tiny(tmp_path), "--draft", "none")
    assert (status, err) == (2, "specsim: error: memory: nothing drafts; name a --draft, or ngram\n")
