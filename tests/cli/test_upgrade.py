"""`specsim upgrade` and `specsim breakeven`: what is printed, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from specsim.planner import anew as anew_module
from tests.specsim.plans import call, tiny

BUY = ("--consider", "rtx5090", "--consider", "256GiB", "--price", "rtx5090=2000", "--electricity", "0.3")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Re-planning that looks at hardly more than one policy."""
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))


def test_upgrade_prints_a_row_each_the_advice_and_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "upgrade.png"
    status, out, err = call(capsys, "upgrade", *tiny(tmp_path), *BUY, "--plot", str(picture))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    heads = ["buy", "tokens/s", "gain", "next", "step", "currency", "units", "tokens/s", "per", "100", "J/token"]
    assert lines[0].split() == [*heads, "per", "million", "then"]
    assert [line.split("  ")[0] for line in lines[2:4]] == ["as it is", "rtx5090"]
    assert lines[5].startswith(("Buy an rtx5090 for 2000 currency units", "Nothing here is worth buying"))
    assert lines[6:] == ["prices: given", "left out: 256GiB: the board holds 128 GiB at most"]
    assert picture.stat().st_size > 10_000


def test_upgrade_gives_programs_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "upgrade", *tiny(tmp_path), *BUY, "--life", "2", "--format", "json")
    answer = json.loads(out)
    assert status == 0
    (row,) = answer["purchases"]
    assert (answer["today"]["buy"], row["buy"], row["kind"]) == ("as it is", "rtx5090", "gpu")
    assert row["gain"] == row["tokens_per_second"] / answer["today"]["tokens_per_second"] - 1
    assert row["price"] == 2000
    assert min(row["cost_per_million"], answer["today"]["cost_per_million"]) > 0
    assert (answer["life_years"], answer["electricity_per_kwh"]) == (2.0, 0.3)
    assert list(answer["left_out"]) == ["256GiB"]
    status, out, _ = call(capsys, "upgrade", *tiny(tmp_path), "--consider", "rtx5090", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [line["buy"] for line in rows] == ["as it is", "rtx5090"]
    assert rows[1]["price"] == rows[1]["cost_per_million"] == ""  # neither prices nor a tariff


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--price", "rtx5090"], "--price: 'rtx5090' is not NAME=PRICE; for example --price rtx4090=1600"),
        (["--price", "rtx509=5"], "--price: unknown part 'rtx509'; did you mean rtx5090"),
        (["--consider", "rtx509"], "consider: unknown part 'rtx509'; did you mean rtx5090"),
        (["--life", "0"], "--life: the life of hardware is 0.0 years; give years"),
        (["--plot", "here.txt"], "here.txt: is no name of a picture; end it in .png, .svg, .pdf"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str], says: str) -> None:
    status, out, err = call(capsys, "upgrade", *tiny(tmp_path), *wrong)
    assert (status, out) == (2, "")
    assert err.startswith(f"specsim: error: {says}")
    assert err.count("\n") == 1


def test_breakeven_prints_a_map_with_the_highest_acceptance_on_top(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "map.png"
    rates = ("--rate", "16GB/s", "--rate", "8GB/s")
    status, out, err = call(capsys, "breakeven", *tiny(tmp_path), *rates, "--plot", str(picture))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["acceptance", "8", "GB/s", "16", "GB/s"]
    assert [line.split()[0] for line in lines[2:11]] == [f"0.{tenths}" for tenths in range(9, 0, -1)]
    assert lines[11].startswith("pays from")
    assert lines[13].startswith("At an acceptance of 0.7 (assumed) ")
    assert "It pays on a link of 8 GB/s " in lines[13]
    assert picture.stat().st_size > 10_000
    status, out, _ = call(capsys, "breakeven", *tiny(tmp_path), "--rate", "8GB/s", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["acceptance"] for row in rows] == [f"0.{tenths}" for tenths in range(1, 10)]
    assert all(float(row["ratio"]) == float(row["speculative"]) / float(row["plain"]) for row in rows)


def test_breakeven_gives_programs_the_points_and_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call(capsys, "breakeven", *tiny(tmp_path), "--rate", "8GB/s", "--format", "json")
    answer = json.loads(out)
    assert status == 0
    assert (answer["over"], answer["here"]["acceptance"], len(answer["points"])) == ("link", 0.7, 9)
    assert [row["bytes_per_s"] for row in answer["pays_from"]] == [8e9]


def test_without_a_draft_there_is_no_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = call(capsys, "breakeven", *tiny(tmp_path), "--draft", "none")
    assert (status, err) == (2, "specsim: error: breakeven: nothing drafts; name a --draft, or ngram\n")
