"""docs/reference.md says what --help says, of every command and every option, with an example that parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from specsim.cli.main import main
from specsim.cli.reference import PAGE, QUESTION, reference
from tests.conftest import ROOT

TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
ROOT_CONTEXT = click.Context(main, info_name="specsim")


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its path."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        else:
            yield inner.command_path, command


COMMANDS = dict(commands(main, ROOT_CONTEXT))


def section(title: str) -> str:
    """What follows a heading, up to the next."""
    return re.split(r"^#", re.split(rf"^#+ {re.escape(title)}$", TEXT, flags=re.MULTILINE)[1], flags=re.MULTILINE)[0]


def test_the_page_is_what_the_commands_say() -> None:
    assert reference(ROOT) == TEXT, "write it anew: python -m specsim.cli.reference"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_flag_of_help_is_in_the_section_of_its_command(path: str) -> None:
    shown = CliRunner().invoke(main, [*path.split()[1:], "--help"]).output
    wanted = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", shown, flags=re.MULTILINE)) - {"--help"}
    found = section(path)
    if "options that ask a question" in found:
        found += section(QUESTION)
    assert wanted <= set(re.findall(r"^\| `(?:-\w, )?(--[a-z-]+)", found, flags=re.MULTILINE))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_says_what_it_does(path: str) -> None:
    silent = [option.name for option in COMMANDS[path].params if isinstance(option, click.Option) and not option.help]
    assert silent == []


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_and_it_parses(path: str) -> None:
    blocks = re.findall(r"```sh\n(.*)\n```", section(path))
    assert len(blocks) == 1, (
        f"show `{path}` in a block of the README or the docs, then: python -m specsim.cli.reference"
    )
    arguments = shlex.split(blocks[0])
    assert arguments[: len(path.split())] == path.split()
    COMMANDS[path].make_context(path, arguments[len(path.split()) :])
