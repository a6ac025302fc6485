"""Options that several commands share, as decorators."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from specsim import units
from specsim.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

PICTURES: Final = (".png", ".svg", ".pdf")
PROFILES: Final = (".yaml", ".yml")


class Quantity(click.ParamType[float]):
    """A value with a unit, such as "24GiB": read by `specsim.units.parse`, a float in base units after that.

    A bad one is the UnitError of `parse`, with the flag in front: it says the value and which units would do.
    """

    def __init__(self, dimension: str) -> None:
        self.dimension = self.name = dimension

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):  # click may convert a default that is one already
            return value
        return units.parse(value, self.dimension, where=param.opts[0] if param else None)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.dimension.upper()


def quantity_option(name: str, dimension: str, help: str) -> Callable[[F], F]:
    """An option such as `--vram 24GiB`: None, or a float in base units of `dimension` (see `units.UNITS`)."""
    return click.option(name, type=Quantity(dimension), help=help)


def format_option(*choices: str) -> Callable[[F], F]:
    """`--format` with these choices, the first the default; received as `fmt` (see `tables.emit`)."""
    kind, text = click.Choice(choices), "Form of the output."
    return click.option("--format", "fmt", type=kind, default=choices[0], show_default=True, help=text)


def check_picture(path: str) -> None:
    """Raise InputError for a picture that could not be written: for commands that take long before they draw."""
    if Path(path).suffix not in PICTURES:
        raise InputError("is no name of a picture", where=path, hint=f"end it in {', '.join(PICTURES)}")
    check_folder(Path(path))


def check_profile(path: Path) -> None:
    """Raise InputError for a profile that could not be written, likewise."""
    if path.suffix not in PROFILES:
        raise InputError("is no name of a profile", where=str(path), hint=f"end it in {PROFILES[0]}")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Raise InputError where a file's folder is not there, or nothing can be written in it, or not to the file."""
    if not path.parent.is_dir():
        raise InputError("cannot be written: its folder does not exist", where=str(path))
    if not os.access(path.parent, os.W_OK):
        raise InputError("cannot be written: its folder is not writable", where=str(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError("cannot be written: it is there, and not writable", where=str(path), hint="name another file")
