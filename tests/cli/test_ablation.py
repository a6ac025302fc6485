"""`specsim ablation`: what each decision is worth, as a table, as rows and as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from specsim.planner import ablation
from tests.specsim import plans
from tests.specsim.plans import call


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [minus for minus in ablation.MINUS if minus.decision in ("schedule", "KV home")]
    monkeypatch.setattr(ablation, "MINUS", tuple(kept))


def test_rows_are_the_full_plan_and_each_decision_fixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "bars.png"
    options = ["--format", "csv", "--plot", str(picture)]
    status, out, err = call(capsys, "ablation", *plans.tiny(tmp_path), *options)
    assert (status, err) == (0, "")
    full, *rows = csv.DictReader(io.StringIO(out))
    assert (full["decision"], full["share"]) == ("none", "1.0")
    assert [row["fixed to"] for row in rows] == ["strategy=serial", "strategy=interleaved", "kv=vram", "kv=ram"]
    for row in rows:
        assert float(row["share"]) == float(row["tokens/s"]) / float(full["tokens/s"])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "ablation", *plans.tiny(tmp_path), "--plot", "bars.txt")
    assert (status, out) == (2, "")
    assert "bars.txt" in err
