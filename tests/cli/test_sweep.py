"""`specsim sweep`: rows to read and to compute with, a file that resumes, a picture, and bad input in one line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.specsim import plans
from tests.specsim.plans import call


def test_results_come_as_table_rows_files_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*plans.tiny(tmp_path), "--fix", "batch=4", "--strategy", "serial", "--jobs", "1"]
    vary = ["--vary", "link=8..32GB/s:2", "--vary", "gamma=0,3"]
    output, picture = tmp_path / "out.csv", tmp_path / "out.png"
    status, out, err = call(capsys, "sweep", *asked, *vary, "-o", str(output), "--plot", str(picture))
    assert (status, err) == (0, "")
    assert out.splitlines()[0].split()[:4] == ["link", "GB/s", "gamma", "tokens/s"]
    assert len(out.splitlines()) == 2 + 4
    assert picture.read_bytes().startswith(b"\x89PNG")
    frame = pd.read_csv(output)
    assert list(frame["link GB/s"]) == [8, 8, 32, 32]
    assert len((tmp_path / "out.csv.journal.jsonl").read_text().splitlines()) == 1 + 4

    status, out, _ = call(capsys, "sweep", *asked, *vary, "-o", str(output), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["tokens_per_second"]) for row in rows] == list(frame["tokens_per_second"])
    status, out, _ = call(capsys, "sweep", *asked, *vary, "-o", str(output), "--format", "json")
    assert [row["gamma"] for row in json.loads(out)] == [0, 3, 0, 3]


def test_results_can_be_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'specsim-offload[parquet]'")
    asked = [*plans.tiny(tmp_path), "--fix", "batch=4", "--strategy", "serial", "--jobs", "1", "--vary", "gamma=0,3"]
    status, _, err = call(capsys, "sweep", *asked, "-o", str(tmp_path / "out.parquet"))
    assert (status, err) == (0, "")
    assert list(pd.read_parquet(tmp_path / "out.parquet")["tokens_per_second"].notna()) == [True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--vary", "linc=8..64GB/s:5"], "unknown field 'linc'; did you mean link"),
        (["--vary", "link"], "'link' is not FIELD=VALUES"),
        (["--vary", "link=8GB/s", "--vary", "link=9GB/s"], "link is varied twice"),
        (["--vary", "gamma=0,1", "-o", "out.xlsx"], "end it in .csv or .parquet"),
        (["--vary", "gamma=0,1", "--plot", "out.txt"], "is no name of a picture"),
        (
            [
                "--plot",
                "a.png",
                *(w for name in ("gamma", "batch", "ring_slots", "requests") for w in ("--vary", f"{name}=1")),
            ],
            "a picture shows up to 3",
        ),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "sweep", *plans.tiny(tmp_path), *options)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_target_is_given_or_varied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "sweep", "--gpu", "rtx4090", "--vary", "gamma=0,1")
    assert status == 2
    assert "no target is given" in err
