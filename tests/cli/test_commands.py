"""Every command in the table exists and has help of its own."""

from __future__ import annotations

import click
import pytest

from specsim.cli.main import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_table_is_there_and_explains_itself(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help
