"""What commands that run something share: the way to the executor, rates that something is held to, the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import click

from specsim import units
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.timeline import Timeline
from specsim.timeline.rounds import cut_rounds, middle_rounds
from specsim.units import show

#: what `pip install specsim-offload` leaves out
EXTRA: Final = ("torch", "transformers", "safetensors")
#: rounds that a picture shows
ROUNDS: Final = 2


def executor(module: str) -> Any:
    """A module of the executor: only who runs a plan needs what it imports, and waits for it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in EXTRA:
            raise
        hint = "pip install 'specsim-offload[run]'"
        raise InputError(f"needs {error.name}, which is not installed", where="running a plan", hint=hint) from None


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
    """Rounds in mid-job as the simulator has them for the shapes that they turned out to have, and as they were.

    `timelines` are `predicted` and `measured`, `measured` the run's useful tokens per second.
    """
    gantt = import_module("specsim.report.gantt")  # matplotlib: only who asks for a picture waits for it
    try:
        first, count = middle_rounds(timelines["measured"], ROUNDS)
    except InputError as error:
        click.echo(f"specsim: nothing to draw: {error.what}", err=True)
        return
    cut = {name: cut_rounds(timeline, first, count) for name, timeline in timelines.items()}
    names = {name: f"{name}: {show(timeline.makespan, 'seconds')}" for name, timeline in cut.items()}
    last = f" to {first + count - 1}" if count > 1 else ""
    title = f"Round {first}{last}: {plan.case.target.name} on {plan.case.machine.name}, {plan.decision.strategy}"
    told = f"{measured:.3g} useful tokens/s; {plan.predicted.tokens_per_second:.3g} were planned"
    gantt.save(gantt.panels({names[name]: cut[name] for name in cut}, title=title, subtitle=told), path)
