"""`specsim list`: every kind of profile, in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest

from specsim import profiles
from specsim.cli.listing import TABLES
from tests.specsim.plans import call

FOLDERS = {folder: kind for kind, folder in profiles.KINDS.items()}


def test_all_kinds_of_profiles_can_be_listed() -> None:
    assert set(TABLES) == {*FOLDERS, "strategies"}


@pytest.mark.parametrize("what", TABLES)
def test_every_format_has_the_same_names(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["serial", "merged", "interleaved"] if what == "strategies" else profiles.names(FOLDERS[what])
    tables = [call(capsys, "list", what, "--format", fmt) for fmt in ("table", "json", "csv")]
    assert [(status, err) for status, _, err in tables] == [(0, "")] * 3
    table, as_json, as_csv = (out for _, out, _ in tables)
    assert [line.split()[0] for line in table.splitlines()[2:]] == names
    assert [row["name"] for row in json.loads(as_json)] == names
    assert [row["name"] for row in csv.DictReader(io.StringIO(as_csv))] == names


def test_a_row_has_the_units_that_its_column_says(capsys: pytest.CaptureFixture[str]) -> None:
    gpus = {row["name"]: row for row in json.loads(call(capsys, "list", "gpus", "--format", "json")[1])}
    assert (gpus["rtx4090"]["VRAM GiB"], gpus["rtx4090"]["GB/s"]) == (24.0, 1008.0)
    models = {row["name"]: row for row in json.loads(call(capsys, "list", "models", "--format", "json")[1])}
    mixtral = models["mixtral-8x7b"]
    assert (mixtral["parameters 1e9"], mixtral["weights GB"]) == (46.702792704, 93.405585408)
    assert (mixtral["experts"], mixtral["layers"], mixtral["vocabulary"]) == ("2 of 8", 32, 32000)
    assert models["mistral-7b"]["experts"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gpuz"], "list: unknown kind 'gpuz'; did you mean gpus?"),
        (["xyz"], "list: unknown kind 'xyz'; known: disks, gpus, hosts, links, machines, models, pairs, "),
        ([], "Missing argument '[gpus|hosts|links|disks|machines|models|workloads|pairs|strategies]'"),
        (["gpus", "--format", "xml"], "Invalid value for '--format': 'xml' is not one of 'table', 'json', 'csv'; see "),
    ],
)
def test_what_cannot_be_listed_is_told(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "list", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"specsim: error: {line}")
    assert err.count("\n") == 1
    assert "\t" not in err
