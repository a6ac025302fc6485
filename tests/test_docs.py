"""The README cannot lie: its commands run, and the plan that it shows is the plan that they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from specsim.cli.main import COMMANDS, main
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMAND_LINES = [
    line.removeprefix("$ ")
    for kind, text in BLOCKS
    if kind in ("console", "sh")
    for line in text.splitlines()
    if line.removeprefix("$ ").startswith("specsim ")
]


def run(command: str) -> str:
    result = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_command_of_the_readme_runs_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    slow = [line for line in COMMAND_LINES if line.startswith("specsim explain")]
    assert len(COMMAND_LINES) > len(slow) >= 1
    for line in COMMAND_LINES:
        if line not in slow:
            run(line)
    assert (tmp_path / "plan.yaml").exists()
    assert (tmp_path / "timeline.png").stat().st_size > 10_000


def test_the_plan_that_the_readme_shows_is_the_one_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = next(text for kind, text in BLOCKS if kind == "console" and "useful tokens/s" in text)
    command, _, output = shown.partition("\n")
    assert run(command.removeprefix("$ ")).strip() == output.strip()


def test_every_command_is_in_the_readme() -> None:
    for name in COMMANDS:
        assert f"`specsim {name}" in README


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = [text for kind, text in BLOCKS if kind == "python"]
    assert code
    for text in code:
        exec(compile(text, "README.md", "exec"), {})
