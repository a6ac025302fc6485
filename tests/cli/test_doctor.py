"""`specsim doctor`: two tables or JSON, status 0 where planning works, and no library that may be missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from specsim import doctor
from specsim.cli import doctor as command
from tests.conftest import ROOT, Fresh
from tests.specsim.plans import call
from tests.specsim.test_doctor import HERE, without


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> doctor.Here:
    """What is looked at: a machine that lacks torch."""
    here = without("torch")
    monkeypatch.setattr(command, "look", lambda directory, say: here)
    return here


def test_tables_say_what_there_is_what_works_and_how_to_get_the_rest(
    found: doctor.Here, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "doctor")
    assert (status, err) == (0, "")
    machine, works, remedies = out.split("\n\n")
    assert [line.split("  ")[0] for line in machine.splitlines()[2:]] == list(doctor.facts(found))
    assert [line.split("  ")[0] for line in works.splitlines()[2:]] == [p.name for p in doctor.purposes(found)]
    assert remedies.splitlines() == [
        "How to get what does not work",
        "  running plans: pip install 'specsim-offload[run]'",
        "  running on a GPU: pip install 'specsim-offload[run]'",
    ]


def test_json_has_the_values_that_the_tables_are_made_of(
    found: doctor.Here, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "doctor", "--format", "json")
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == ["specsim", "machine", "works", "advice"]
    assert answer["machine"]["gpus"]["cards"][0]["link"] == "PCIe 4 x16"
    assert answer["machine"]["packages"]["torch"] is None
    assert {row["name"]: row["works"] for row in answer["works"]}["planning"] is True


def test_the_status_is_1_where_planning_does_not_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "look", lambda directory, say: replace(HERE, solver="the solver fails: no HiGHS"))
    assert call(capsys, "doctor")[0] == 1


def test_it_works_where_next_to_nothing_is_installed(fresh: Fresh) -> None:
    """Only what the command line itself is made of loads here; the solver, which needs SciPy, is found wanting."""
    missing = ("torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "msgspec", "yaml")
    story = f"import sys; sys.modules.update(dict.fromkeys({missing}))\nfrom specsim.cli.main import entry\n"
    done = fresh("-c", f"{story}import specsim.doctor as d; d.ask_torch = d.Torch\nsys.exit(entry(['doctor']))")
    assert (done.returncode, done.stderr) == (1, "")
    assert "the solver fails: import of numpy halted" in done.stdout


def test_the_documentation_shows_the_lines_that_are_printed() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    shown = {line.split("  ")[0] for line in page.splitlines() if "  " in line}
    assert set(doctor.facts(HERE)) | {purpose.name for purpose in doctor.purposes(HERE)} <= shown
