"""Tables for people, JSON and CSV for programs, and progress only where somebody sees it."""

from __future__ import annotations

import io
import json
import math
import sys

import pytest

from specsim.cli.tables import emit, progress, render

HEADERS = ["strategy", "tokens/s", "fits", "note"]
ROWS = [["serial", 12.3456, True, None], ["interleaved", 24680.5, False, "best"]]


def test_numbers_stand_right_and_words_left() -> None:
    assert render(["name", "GPUs"], [["env1", 1], ["desktop-cpu", 0], ["other", None]]).split("\n") == [
        "name         GPUs",
        "-----------  ----",
        "env1            1",
        "desktop-cpu     0",
        "other           -",
    ]


def test_the_caller_may_align() -> None:
    assert render(["a", "b"], [["xyz", 10], ["x", 7]], align="rl") == "  a  b\n---  --\nxyz  10\n  x  7"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (2 / 3, "0.6667"), (1234.5, "1234"), (1e-7, "1e-07"), (math.inf, "inf"), (True, "yes")],
)
def test_a_cell_as_text(value: float, text: str) -> None:
    assert render(["x"], [[value]]).split("\n")[-1] == text


def test_a_table_without_rows_is_its_head() -> None:
    assert render(["name", "title"], []) == "name  title\n----  -----"


def test_emit_writes_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    emit(["name"], [["env1"]], "table")
    assert capsys.readouterr() == ("name\n----\nenv1\n", "")


def test_json_is_a_list_of_objects_with_unrounded_values(capsys: pytest.CaptureFixture[str]) -> None:
    emit(HEADERS, ROWS, "json")
    assert json.loads(capsys.readouterr().out) == [dict(zip(HEADERS, row, strict=True)) for row in ROWS]


def test_json_has_null_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    emit(["x", "y"], [[math.nan, math.inf]], "json")
    assert json.loads(capsys.readouterr().out) == [{"x": None, "y": None}]


def test_csv_has_a_head_and_unrounded_values(capsys: pytest.CaptureFixture[str]) -> None:
    emit(HEADERS, ROWS, "csv")
    expected = "strategy,tokens/s,fits,note\nserial,12.3456,True,\ninterleaved,24680.5,False,best\n"
    assert capsys.readouterr().out == expected


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="no format called 'xml'"):
        emit(HEADERS, ROWS, "xml")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_written_once_per_percent_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(400, "placing") as advance:
        for _ in range(8):
            advance(1)
    expected = "\rplacing 0 %\rplacing 1 %\rplacing 2 %\r\x1b[K"
    assert terminal.getvalue() == expected


def test_progress_is_silent_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress(2, "placing") as advance:
        advance(1)
    assert file.getvalue() == ""


def test_progress_is_wiped_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyError), progress(1, "placing"):
        raise KeyError
    assert terminal.getvalue() == "\rplacing 0 %\r\x1b[K"
