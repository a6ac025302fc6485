"""`--report`: a page from plan, simulate and explain; what cannot be written is said before anything is searched."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from specsim.planfile import write_plan
from specsim.planner import anew as anew_module
from specsim.planner import explain as explain_module
from tests.conftest import ROOT
from tests.specsim import plans
from tests.specsim.plans import call, tiny


@pytest.fixture
def plan(tmp_path: Path) -> str:
    write_plan(plans.plan(gpu=False), tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


def test_a_plan_comes_with_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    settled = ["--strategy", "serial", "--fix", "gamma=3", "--fix", "batch=4"]
    status, out, err = call(capsys, "plan", *tiny(tmp_path), *settled, "--report", str(page))
    assert (status, err) == (0, "")
    assert out.splitlines()[0] in page.read_text(encoding="utf-8")


def test_a_plan_file_is_enough_for_a_page(plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert call(capsys, "simulate", plan, "--report", str(page))[::2] == (0, "")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_of_an_explanation_says_what_it_says(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    monkeypatch.setattr(explain_module, "STEPS", 1)
    page = tmp_path / "report.html"
    assert call(capsys, "explain", plan, "--report", str(page))[::2] == (0, "")
    assert "What it depends on" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("report.pdf", "report.pdf: is no name of a page; end it in .html"),
        ("nowhere/report.html", "nowhere/report.html: cannot be written: its folder does not exist"),
    ],
)
@pytest.mark.parametrize("command", [["plan", "--target", "x"], ["simulate", "x.yaml"], ["explain", "x.yaml"]])
def test_a_page_that_cannot_be_written_is_said_first(
    command: list[str], name: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, *command, "--report", name) == (2, "", f"specsim: error: {says}\n")


def test_a_page_that_may_not_be_overwritten_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    page.write_text("mine")
    monkeypatch.setattr(os, "access", lambda path, mode: path != page)  # as root, every file may be written
    told = f"specsim: error: {page}: cannot be written: it is there, and not writable; name another file\n"
    assert call(capsys, "simulate", "x.yaml", "--report", str(page)) == (2, "", told)


def test_the_python_of_the_documentation_draws_its_pictures(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "report.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "report.md", "exec"), {})
    assert (tmp_path / "memory.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "roofline.svg").read_text(encoding="utf-8")
