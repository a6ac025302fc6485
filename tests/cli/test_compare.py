"""`specsim compare`: the ways of running a job as a table with its sentence, as rows, as JSON and as a picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.specsim import plans
from tests.specsim.plans import call


def test_a_table_ends_with_why_the_first_wins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "bars.png"
    status, out, err = call(capsys, "compare", *plans.tiny(tmp_path), "--plot", str(picture))
    assert (status, err) == (0, "")
    table, why = out.split("\n\n")
    assert table.splitlines()[2].split()[0] == "specsim"
    assert why.startswith("specsim (")
    assert " wins, " in why
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_and_csv_have_the_same_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = plans.tiny(tmp_path)
    found = json.loads(call(capsys, "compare", *tiny, "--format", "json")[1])
    rows = list(csv.DictReader(io.StringIO(call(capsys, "compare", *tiny, "--format", "csv")[1])))
    assert [(way["name"], way["plan"]) for way in found["ways"]] == [(row["way"], row["plan"]) for row in rows]
    assert [str(way["tokens_per_second"]) for way in found["ways"]] == [row["tokens/s"] for row in rows]
    assert found["why"].startswith("specsim (")
    assert found["requests"] == 4
