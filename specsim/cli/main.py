"""The root of the command line: a table of commands, loaded when called, and the place where errors are told.

stdout carries data. Progress and errors go to stderr, an error as one line. The exit status is 0 when done, 1
for no feasible plan, 2 for bad input, 70 for a bug in specsim, 130 after an interrupt,
141 when the reader of stdout went away, and 143 after SIGTERM.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click
from click.shell_completion import shell_complete

from specsim import __version__
from specsim.errors import SpecsimError, Terminated, UnknownNameError

BAD_INPUT: Final = 2
INTERNAL_ERROR: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 128 + 2  # what a shell reports after SIGINT
READER_GONE: Final = 128 + 13  # and after SIGPIPE
TERMINATED: Final = 128 + 15  # and after SIGTERM


class Lazy(NamedTuple):
    """Where a command is found, and its line in `specsim --help`, which must not load it."""

    module: str
    attribute: str
    help: str


class LazyGroup(click.Group):
    """A group that imports the module of a command only when that command is called."""

    def __init__(self, *args: Any, table: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the table, which is the order in which a person needs them."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        lazy = self.table[cmd_name]
        command: click.Command = getattr(import_module(lazy.module), lazy.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # Parsing is resilient when a shell asks to complete half a name.
        if args[0] not in self.table and not ctx.resilient_parsing:
            raise UnknownNameError("command", args[0], self.table)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.table.items()])


COMMANDS: Final[Mapping[str, Lazy]] = {
    "plan": Lazy("specsim.cli.plan", "plan", "Find the fastest lossless way to run a model on a machine."),
    "simulate": Lazy("specsim.cli.simulate", "simulate", "Show the timeline of a plan."),
    "explain": Lazy("specsim.cli.explain", "explain", "Say what bounds a plan, and what would speed it up."),
    "compare": Lazy("specsim.cli.compare", "compare", "Show every way to run a model side by side."),
    "ablation": Lazy("specsim.cli.ablation", "ablation", "Say what each decision of the planner is worth."),
    "sweep": Lazy("specsim.cli.sweep", "sweep", "Plan anew for ranges of any field: what if?"),
    "upgrade": Lazy("specsim.cli.upgrade", "upgrade", "Say what to buy: every part, planned anew, with prices."),
    "breakeven": Lazy("specsim.cli.breakeven", "breakeven", "Map from which acceptance speculation pays."),
    "memory": Lazy("specsim.cli.memory", "memory", "Say how little memory will do, and what speculation takes of it."),
    "run": Lazy("specsim.cli.run", "run", "Execute a plan with real weights."),
    "chat": Lazy("specsim.cli.chat", "chat", "Talk with a plan's target, turn by turn."),
    "serve": Lazy("specsim.cli.serve", "serve", "Answer OpenAI's clients over HTTP with a plan's target."),
    "validate": Lazy("specsim.cli.validate", "validate", "Predict, measure, and say where the error lies."),
    "export": Lazy("specsim.cli.export", "export", "Write a plan as another engine's configuration."),
    "published": Lazy("specsim.cli.published", "published", "Predict what published systems were measured at."),
    "list": Lazy("specsim.cli.listing", "listing", "List the GPUs, hosts, models, workloads that are known."),
    "profile": Lazy("specsim.cli.profile", "profile", "Measure this machine, to plan for it."),
    "doctor": Lazy("specsim.cli.doctor", "doctor", "Say what this machine has, and what is missing for what."),
    "profiles": Lazy("specsim.cli.profiles", "profiles", "Check profile files."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Plan offloading and speculative decoding for language models that do not fit the GPU."""


def entry(argv: Sequence[str] | None = None, group: click.Group = main) -> int:
    """Run `group` on `argv` (default: the process's arguments) and return the exit status.

    With SPECSIM_TRACEBACK=1 in the environment an error is raised, traceback and all, not told in one line.
    """
    try:
        status = _invoke(group, sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:  # it is in a process that was started without one
            sys.stdout.flush()  # so that a reader who has gone is noticed here and not at interpreter exit
        return status
    except (KeyboardInterrupt, click.Abort) as error:
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has nowhere to go; the interpreter would try once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except Exception as error:
        if os.environ.get("SPECSIM_TRACEBACK") == "1":
            raise
        message, status = _describe(error)
        click.echo(f"specsim: error: {' '.join(message.splitlines())}", err=True)
        return status


def _invoke(group: click.Group, argv: Sequence[str]) -> int:
    """Call the command that `argv` names. A command may return its exit status; None means 0."""
    if completion := os.environ.get("_SPECSIM_COMPLETE"):
        return shell_complete(group, {}, "specsim", "_SPECSIM_COMPLETE", completion)
    try:
        with group.make_context("specsim", list(argv)) as context:
            return group.invoke(context) or 0
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code


def _describe(error: Exception) -> tuple[str, int]:
    """What `error` says to the user, and the exit status that goes with it."""
    match error:
        case SpecsimError():
            return str(error), error.exit_status
        case click.UsageError(ctx=click.Context() as context):
            message = " ".join(error.format_message().split())  # click sets choices apart by lines and tabs
            return f"{message.rstrip('.')}; see {context.command_path} --help", BAD_INPUT
        case click.ClickException():
            return error.format_message(), BAD_INPUT
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}", BAD_INPUT
        case _:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
            what = f"bug in specsim: {type(error).__name__}: {error} ({place})"
            return f"{what}; set SPECSIM_TRACEBACK=1 for the traceback, and report it", INTERNAL_ERROR
