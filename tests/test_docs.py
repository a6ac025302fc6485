"""The README cannot lie: its commands run, and what it shows of them is what they print."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from specsim import machines
from specsim.cli.main import COMMANDS, main
from specsim.planfile import write_plan
from specsim.planner import anew as anew_module
from specsim.planner import explain as explain_module
from tests.conftest import ROOT
from tests.specsim import plans

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)
BLOCKS = BLOCK.findall(README)
INLINE = re.findall(r"`([^`\n]+)`", BLOCK.sub("", README))
COMMAND_LINES = [
    line.removeprefix("$ ")
    for kind, text in BLOCKS
    if kind in ("console", "sh")
    for line in text.replace("\\\n", " ").splitlines()
    if line.removeprefix("$ ").startswith("specsim ")
]
(PLAN,) = [line for line in COMMAND_LINES if line.endswith(" -o plan.yaml")]
EXPLAIN, PROFILE = "specsim explain plan.yaml", "specsim profile --quick -o here.yaml"
#: options that say where things go
OUTPUTS = ("-o", "--plot", "--trace")


def run(command: str) -> str:
    arguments = shlex.split(command.replace("executor/demo", str(ROOT / "executor" / "demo")))
    result = CliRunner().invoke(main, arguments[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the README's first plan lies, and what making it printed."""
    folder = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, run(PLAN)


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring takes milliseconds, and is worth as much."""
    measuring = pytest.importorskip("executor.profile.measure", reason="torch is not installed")
    stories = pytest.importorskip("tests.executor.profile_stories")
    whole = measuring.measure

    def measure(path: Path, effort: object, say: object) -> object:
        return whole(path, effort=stories.NO_TIME, host=stories.HOST, disk=stories.DISK, say=say)

    monkeypatch.setattr(measuring, "measure", measure)


def test_every_command_of_the_readme_runs_in_turn(
    planned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for those of the next tests, which would take half a minute each."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(planned[0] / "plan.yaml", tmp_path)
    (tmp_path / "here.yaml").write_text(yaml.safe_dump(machines.to_dict(machines.assemble(machine="desktop-cpu"))))
    assert {PLAN, EXPLAIN, PROFILE} <= set(COMMAND_LINES)
    for line in COMMAND_LINES:
        if line not in (PLAN, EXPLAIN, PROFILE):
            run(line)
    assert len((tmp_path / "out" / "outputs.jsonl").read_text().splitlines()) == 16
    for picture in ("timeline.png", "rounds.png"):
        assert (tmp_path / picture).stat().st_size > 10_000


def test_explain_runs_on_a_smaller_plan_with_shorter_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))  # re-planning looks at one policy each
    monkeypatch.setattr(explain_module, "STEPS", 1)
    write_plan(plans.plan(gpu=False), "plan.yaml")
    assert "without speculation: " in run(EXPLAIN)


@pytest.mark.usefixtures("quick_probes")
def test_profile_runs_with_quicker_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(PROFILE)
    assert machines.assemble(machine="here.yaml").host.cores >= 1


def test_make_demo_runs_what_the_readme_shows() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    made = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"-m (specsim .*)", made.replace("\\\n", " "))
    assert len(lines) == 5
    shown = [inputs(line) for line in COMMAND_LINES]
    assert [line for line in lines if inputs(line) not in shown] == []


def inputs(line: str) -> list[str]:
    """The words of a command line without where its outputs go; in the Makefile that is below out/."""
    words = [word.removeprefix("out/") for word in shlex.split(line)]
    return [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & set(OUTPUTS)]


def test_the_other_lines_of_its_blocks_are_targets_of_make() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.replace("\\\n", " ").splitlines() if line]
    others = [line.partition("#")[0].split() for line in lines if not line.startswith("specsim ")]
    assert others == [["make", "demo"], ["make", "test"]]
    assert {target for _, target in others} <= set(targets)


def test_its_modules_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as their help: what they measure takes minutes."""
    pytest.importorskip("torch", reason="torch is not installed")
    modules = {line.split()[2] for line in INLINE if line.startswith("python -m ")}
    assert len(modules) > 8
    for module in sorted(modules):
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert ended.value.code in (0, None), module


def test_its_options_exist() -> None:
    known = {name for option in options(main, click.Context(main)) for name in (*option.opts, *option.secondary_opts)}
    named = {
        word
        for line in INLINE
        if line.startswith(("--", "specsim "))
        for word in re.findall(r"(?<!\S)--?[a-z-]+", line)
    }
    assert named - known == set()


def options(command: click.Command, context: click.Context) -> Iterator[click.Option]:
    yield from (option for option in command.get_params(context) if isinstance(option, click.Option))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner, click.Context(inner))


def test_its_profiles_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (text for kind, text in BLOCKS if kind == "yaml"):
        (tmp_path / f"{yaml.safe_load(text)['name']}.yaml").write_text(text)
    assert "specsim profiles check mygpu.yaml" in INLINE
    assert run("specsim profiles check mygpu.yaml mybox.yaml") == "mygpu.yaml: ok\nmybox.yaml: ok\n"
    assert machines.assemble(gpu="mygpu.yaml").gpu == machines.assemble(machine="mybox.yaml").gpu


def test_the_plan_that_the_readme_shows_is_the_one_that_is_printed(planned: tuple[Path, str]) -> None:
    shown = next(text for kind, text in BLOCKS if kind == "console" and "useful tokens/s" in text)
    command, _, output = shown.partition("\n")
    assert command == f"$ {PLAN}"
    assert planned[1].strip() == output.strip()


def test_the_exports_that_are_shown_are_what_is_printed(
    planned: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(planned[0] / "plan.yaml", tmp_path)
    blocks = BLOCK.findall((ROOT / "docs" / "export.md").read_text(encoding="utf-8"))
    shown = [text.removeprefix("$ ").partition("\n") for kind, text in blocks if kind == "console"]
    assert len(shown) == 3
    for command, _, output in shown:
        assert run(command).strip() == output.strip()
    exec(compile(next(text for kind, text in blocks if kind == "python"), "export.md", "exec"), {})


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
