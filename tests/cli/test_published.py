"""`specsim published`: columns that programs read, a table for people, a picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from click.testing import CliRunner, Result

from specsim.cli.main import main


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["published", *words])


def test_csv_has_a_line_for_every_cell_and_output_length() -> None:
    done = run("--output-tokens", "16,32", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["model", "environment", "workload", "output_tokens", "system", "tokens_per_s"]
    assert len(rows) == 2 * 56
    assert all(float(row["tokens_per_s"]) > 0 for row in rows)
    assert {row["output_tokens"] for row in rows} == {"16", "32"}


def test_json_has_the_same_numbers() -> None:
    rows = json.loads(run("--format", "json").stdout)
    assert len(rows) == 56
    assert rows[0]["system"] == "accelerate"


def test_the_table_has_errors_winners_and_how_much_was_fitted(tmp_path: Path) -> None:
    picture = tmp_path / "published.png"
    done = run("--plot", str(picture))
    for words in (
        "median |error|",
        "8 of 8",
        "SpecOffload over FlexGen",
        "GPU busy",
        "VRAM",
        "parameters, and 16 batches",
    ):
        assert words in done.stdout
    assert picture.stat().st_size > 10_000


def test_a_bad_length_is_one_line() -> None:
    done = run("--output-tokens", "16,many")
    assert done.exit_code != 0
    assert "no list of output lengths" in str(done.exception)
