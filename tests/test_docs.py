"""The README cannot lie: its commands run, and the plan that it shows is the plan that they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from specsim import machines
from specsim.cli.main import COMMANDS, main
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMAND_LINES = [
    line.removeprefix("$ ").replace("executor/demo", str(ROOT / "executor" / "demo"))
    for kind, text in BLOCKS
    if kind in ("console", "sh")
    for line in text.replace("\\\n", " ").splitlines()
    if line.removeprefix("$ ").startswith("specsim ")
]
#: half a minute of re-planning, and what measures the machine for a quarter of one
SLOW = ("specsim explain", "specsim profile ")


def run(command: str) -> str:
    result = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_command_of_the_readme_runs_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.yaml").write_text(yaml.safe_dump(machines.to_dict(machines.assemble(machine="desktop-cpu"))))
    slow = [line for line in COMMAND_LINES if line.startswith(SLOW)]
    assert len(slow) == len(SLOW)
    for line in COMMAND_LINES:
        if line not in slow:
            run(line)
    assert (tmp_path / "plan.yaml").exists()
    assert len((tmp_path / "out" / "outputs.jsonl").read_text().splitlines()) == 16
    for picture in ("timeline.png", "rounds.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_the_plan_that_the_readme_shows_is_the_one_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = next(text for kind, text in BLOCKS if kind == "console" and "useful tokens/s" in text)
    command, _, output = shown.partition("\n")
    assert run(command.removeprefix("$ ")).strip() == output.strip()


def test_every_command_is_in_the_readme() -> None:
    for name in COMMANDS:
        assert f"`specsim {name}`" in README


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = [text for kind, text in BLOCKS if kind == "python"]
    assert code
    for text in code:
        exec(compile(text, "README.md", "exec"), {})


def test_the_comparison_that_is_shown_has_the_ways_that_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    shown = re.findall(r"```console\n\$ (specsim compare.*?)\n(.*?)```", page, flags=re.DOTALL)
    ((command, output),) = shown
    assert ways(run(command)) == ways(output)
    assert (tmp_path / "compare.png").stat().st_size > 10_000


def ways(table: str) -> list[str]:
    """The first column of a table, fastest way first."""
    return [line.split()[0] for line in table.split("\n\n")[0].splitlines()[2:]]
