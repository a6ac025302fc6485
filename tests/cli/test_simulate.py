"""`specsim simulate`: the round of a plan as a table, a trace and a picture."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from specsim import api
from specsim.planfile import write_plan
from specsim.timeline import read_trace
from tests.specsim import plans
from tests.specsim.plans import call


@pytest.fixture
def plan(tmp_path: Path) -> str:
    write_plan(plans.plan(), tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


def test_every_stream_and_kind_has_a_row_and_the_job_a_line(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "simulate", plan)
    assert (status, err) == (0, "")
    found = api.simulate(plan)
    kinds = {(span.stream, span.kind) for span in found.round.spans}
    lines = out.splitlines()
    assert lines[0].split() == ["stream", "kind", "tasks", "seconds", "share", "GB", "TFLOP"]
    assert {tuple(line.split()[:2]) for line in lines[2 : 2 + len(kinds)]} == kinds
    assert lines[-1].endswith(f"{len(found.job.rounds)} rounds; {found.job.tokens_per_second:.4g} useful tokens/s")


def test_json_and_csv_carry_the_same_rows_and_nothing_else(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    as_json = json.loads(call(capsys, "simulate", plan, "--format", "json")[1])
    as_csv = list(csv.DictReader(io.StringIO(call(capsys, "simulate", plan, "--format", "csv")[1])))
    assert [{key: str(value) for key, value in row.items()} for row in as_json] == as_csv
    found = api.simulate(plan)
    assert sum(row["tasks"] for row in as_json) == len(found.round.spans)
    assert sum(row["seconds"] for row in as_json) == pytest.approx(sum(s.seconds for s in found.round.spans))


def test_the_trace_reads_back_and_the_picture_is_a_png(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, picture = tmp_path / "trace.json", tmp_path / "timeline.png"
    assert call(capsys, "simulate", plan, "--trace", str(trace), "--plot", str(picture))[0] == 0
    found, read = api.simulate(plan), read_trace(trace)
    assert list(read) == ["round", "prefill"]
    assert [span.name for span in read["round"].spans] == [span.name for span in found.round.spans]
    assert read["prefill"].makespan == pytest.approx(found.prefill.makespan, abs=1e-9)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--trace", "nowhere/t.json"], "nowhere/t.json: cannot write the trace: No such file or directory"),
        (["--plot", "nowhere/t.png"], "nowhere/t.png: cannot write the picture: No such file or directory"),
        (["--plot", "t.xyz"], "t.xyz: cannot write the picture: Format 'xyz' is not supported"),
        (["--plot", "."], "Invalid value for '--plot': File '.' is a directory"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_printed(
    plan: str,
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, "simulate", plan, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"specsim: error: {says}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["simulate", "explain"])
def test_a_plan_that_cannot_be_read_is_bad_input(command: str, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    cut = Path(plan)
    cut.write_bytes(cut.read_bytes()[:2000])
    status, out, err = call(capsys, command, plan)
    assert (status, out) == (2, "")
    assert err.startswith(f"specsim: error: {plan}: ")
    assert err.count("\n") == 1
    cut.unlink()
    gone = f"specsim: error: {plan}: cannot be read: No such file or directory\n"
    assert call(capsys, command, plan) == (2, "", gone)
