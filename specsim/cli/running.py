"""What commands that run something share: rates that something is held to, and the picture of what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

import click

from specsim import units
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.timeline import Timeline


def rates(words: Sequence[str]) -> dict[str, float]:
    """NAME=RATE pairs, in bytes/s."""
    rates: dict[str, float] = {}
    for word in words:
        name, equals, rate = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is not NAME=RATE", where="--throttle", hint="for example disk=500MB/s")
        if name in rates:
            raise InputError(f"{name} is throttled twice", where="--throttle", hint="give one rate")
        rates[name] = units.parse(rate, "bytes/s", where=f"--throttle {name}")
    return rates


def draw_rounds(plan: Plan, measured: float, timelines: Mapping[str, Timeline], path: str) -> None:
    """Write the picture of rounds in mid-job (see `report.rounds.measured`), or say that there are none."""
    rounds, style = (import_module(f"specsim.report.{name}") for name in ("rounds", "style"))  # matplotlib
    try:
        figure = rounds.measured(plan, measured, timelines)
    except InputError as error:
        click.echo(f"specsim: nothing to draw: {error.what}", err=True)
        return
    style.save(figure, path)
