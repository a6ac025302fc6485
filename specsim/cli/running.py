"""What commands that run something share: rates that something is held to, and the picture of what was run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from specsim import units
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.runtime import executor
from specsim.timeline import Timeline

Command = Callable[..., Any]


def sampling_options(command: Command) -> Command:
    """How tokens are chosen."""
    options = (
        click.option("--temperature", type=click.FloatRange(min=0), help="Sample; without it, decode greedily."),
        click.option("--top-k", type=click.IntRange(min=1), help="Sample from the K likeliest tokens."),
        click.option(
            "--top-p", type=click.FloatRange(0, 1, min_open=True), help="Sample from the likeliest tokens up to P."
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Of sampling; 0 if not given."),
    )
    return _with(options, command)


def numerics_option(command: Command) -> Command:
    """Whether rounding may depend on the batch."""
    option = click.option(
        "--numerics",
        type=click.Choice(["exact", "fast"]),
        default="exact",
        show_default=True,
        help="exact: the same tokens whatever the plan. fast: rounding may depend on the batch.",
    )
    return option(command)


def draft_length_option(command: Command) -> Command:
    """Whether drafts are as long as planned, or as is worth it."""
    option = click.option(
        "--draft-length",
        type=click.Choice(["fixed", "adaptive"]),
        default="fixed",
        show_default=True,
        help="fixed: the plan's. adaptive: less, where a sequence's own candidates are rarely accepted.",
    )
    return option(command)


def machine_options(command: Command) -> Command:
    """What the machine does that the plan does not say."""
    slow = "Slow down disk or link, e.g. disk=500MB/s."
    options = (
        click.option("--throttle", multiple=True, metavar="NAME=RATE", help=slow),
        click.option("--emulate-gpu", is_flag=True, help="Play the plan's GPU on the CPU."),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads that compute."),
    )
    return _with(options, command)


def models_options(command: Command) -> Command:
    """The plan, and the checkpoints of its models."""
    options = (
        click.argument("plan_file", metavar="PLAN"),
        click.option("--target", required=True, metavar="DIR", help="Checkpoint directory of the plan's target."),
        click.option("--draft", metavar="DIR", help="Checkpoint directory of the plan's draft."),
    )
    return _with(options, command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def check_sampling(options: Mapping[str, Any]) -> None:
    """Raise InputError for options of sampling where nothing is sampled."""
    for name in ("top_k", "top_p", "seed"):
        if options[name] is not None and not options["temperature"]:
            hint = "give a --temperature above 0, or leave it out"
            raise InputError("greedy decoding draws nothing", where=f"--{name.replace('_', '-')}", hint=hint)


def open_to_talk(plan: Plan, options: Mapping[str, Any]) -> Any:
    """The checkpoints of a plan, found whole, as an `executor.opening.Opened`. Raises InputError for one without a
    tokenizer, and as opening does."""
    setting = executor("executor.options").Setting(
        Path(options["target"]),
        Path(options["draft"]) if options["draft"] else None,
        options["numerics"],
        rates(options["throttle"]),
        options["emulate_gpu"],
        options["threads"],
        options["draft_length"],
    )
    opened = executor("executor.opening").open_models(
        plan, setting, executor("executor.ranks.stage").stage_of(plan, None)
    )
    if opened.tokenizer is None:
        hint = "put its tokenizer.json there, or run prompts of token ids"
        raise InputError("the checkpoint has no tokenizer", where=options["target"], hint=hint)
    return opened


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
