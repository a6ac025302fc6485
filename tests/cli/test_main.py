"""The root of the command line: what is loaded when, what an error says, and the exit status."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import click
import pytest

from specsim import __version__
from specsim.cli.main import Lazy, LazyGroup, entry
from specsim.errors import InfeasibleError, InputError, UnitError
from tests.conftest import ROOT, Fresh

Outcome = tuple[int, str, str]  # exit status, stdout, stderr
Call = Callable[..., Outcome]


@click.command()
@click.argument("ending")
@click.option("--vram")
def plan(ending: str, vram: str | None) -> int:
    """A command that ends in the way that it is told."""
    endings: dict[str, BaseException] = {
        "bad": UnitError("'24' has no unit", where="--vram", hint="use GiB"),
        "two lines": InputError("first\nsecond"),
        "infeasible": InfeasibleError("ram is short by 3 GiB"),
        "parameter": click.BadParameter("no such file."),
        "file": FileNotFoundError(2, "No such file or directory", "there/plan.yaml"),
        "interrupt": KeyboardInterrupt(),
        "abort": click.Abort(),
        "bug": KeyError("gamma"),
    }
    if ending in endings:
        raise endings[ending]
    click.echo(f"vram {vram}")
    return 1 if ending == "failed" else 0


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in a group of two: `plan`, above, and `broken`, whose module does not exist."""
    module = ModuleType("lazy_commands")
    module.plan = plan  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lazy_commands", module)
    monkeypatch.delenv("SPECSIM_TRACEBACK", raising=False)
    table = {
        "plan": Lazy("lazy_commands", "plan", "Find a plan."),
        "broken": Lazy("no_such_module", "broken", "Cannot be loaded."),
    }
    group = LazyGroup("specsim", table=table)

    def run(*arguments: str) -> Outcome:
        status = entry(arguments, group)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_help_lists_the_commands_in_order_without_loading_them(call: Call) -> None:
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert out.endswith("Commands:\n  plan    Find a plan.\n  broken  Cannot be loaded.\n")


def test_a_called_command_is_loaded_and_the_others_are_not(call: Call) -> None:
    assert call("plan", "well", "--vram", "8GiB") == (0, "vram 8GiB\n", "")


def test_a_command_may_return_its_exit_status(call: Call) -> None:
    assert call("plan", "failed") == (1, "vram None\n", "")


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["plan", "bad"], 2, "--vram: '24' has no unit; use GiB"),
        (["plan", "two lines"], 2, "first second"),
        (["plan", "infeasible"], 1, "ram is short by 3 GiB"),
        (["plan", "parameter"], 2, "Invalid value: no such file; see specsim plan --help"),
        (["plan", "file"], 2, "there/plan.yaml: No such file or directory"),
        (["plan"], 2, "Missing argument 'ENDING'; see specsim plan --help"),
        (["plann"], 2, "unknown command 'plann'; did you mean plan?"),
        (["xyz"], 2, "unknown command 'xyz'; known: broken, plan"),
    ],
)
def test_an_error_is_one_line_on_stderr(call: Call, arguments: list[str], status: int, line: str) -> None:
    assert call(*arguments) == (status, "", f"specsim: error: {line}\n")


def test_an_unknown_option_names_its_command(call: Call) -> None:
    status, out, err = call("plan", "--nope", "well")
    assert (status, out) == (2, "")
    assert "--nope" in err
    assert err.endswith("; see specsim plan --help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("ending", ["interrupt", "abort"])
def test_an_interrupt_ends_quietly(call: Call, ending: str) -> None:
    assert call("plan", ending) == (130, "", "")


def test_a_bug_is_one_line_that_says_where_and_how_to_see_more(call: Call) -> None:
    status, out, err = call("plan", "bug")
    assert (status, out) == (70, "")
    assert err.startswith("specsim: error: bug in specsim: KeyError: 'gamma' (test_main.py:")
    assert err.endswith("; set SPECSIM_TRACEBACK=1 for the traceback, and report it\n")


def test_the_traceback_is_there_for_who_asks(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECSIM_TRACEBACK", "1")
    with pytest.raises(UnitError, match="'24' has no unit"):
        call("plan", "bad")


def test_without_a_command_the_help_goes_to_stderr(call: Call) -> None:
    status, out, err = call()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: specsim [OPTIONS] COMMAND [ARGS]...\n")


def test_a_shell_can_complete_a_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SPECSIM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "specsim pl")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert call() == (0, "plain,plan\n", "")


def test_the_version_is_that_of_the_package(fresh: Fresh) -> None:
    done = fresh("-m", "specsim", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"specsim {__version__}\n", "")


def test_a_reader_who_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "specsim", "--help"]
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(command, cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_libraries_print_from_c_is_not_in_the_data(fresh: Fresh) -> None:
    code = """
import json
import os
from specsim.cli.process import keep_stdout
keep_stdout()
os.write(1, b"noise")
print("data", flush=True)
"""
    assert fresh("-c", code).stdout == "data\n"


def test_a_process_without_stdout_works() -> None:
    command = f"{shlex.quote(sys.executable)} -m specsim list gpus >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_without_stderr_works() -> None:
    """A plan's search tells its progress there."""
    question = "--gpu rtx4090 --target llama-3.1-8b --prompt-tokens 64 --output-tokens 8 --requests 1 --format json"
    command = f"{shlex.quote(sys.executable)} -m specsim plan {question} 2>&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["target"]["name"]) == (0, "llama-3.1-8b")


def test_the_solver_leaves_the_stdout_of_a_library_s_caller_alone(fresh: Fresh) -> None:
    """It neither needs one nor takes it away from other threads, so a closed one is never touched."""
    code = "import os; from specsim import doctor; os.close(1); os._exit(len(doctor._solver()))"
    done = fresh("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
