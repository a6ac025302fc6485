"""`specsim plan`: find the fastest lossless way to run a model on a machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from specsim import api, planfile
from specsim.cli.options import format_option
from specsim.cli.question import question, question_options
from specsim.cli.status import status
from specsim.errors import InputError
from specsim.report.text import plan_text


@click.command("plan")
@question_options
@click.option("--strategy", default="auto", show_default=True, help="auto, serial, merged or interleaved.")
@click.option(
    "--fix", "fixes", multiple=True, metavar="NAME=VALUE", help="Settle a policy field, e.g. gamma=6, batch=256."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the plan here: YAML, or JSON for .json.")
@format_option("table", "json")
def plan(output: str | None, fmt: str, strategy: str, fixes: Sequence[str], **options: Any) -> None:
    """Find the fastest lossless way to run a model on a machine.

    Prints the answer, the reason and what to buy next; -o writes the plan for specsim simulate and specsim explain.
    """
    fix = _fixes(fixes)
    if output is not None and not Path(output).parent.is_dir():  # said before the search, not after it
        raise InputError("cannot be written: its folder does not exist", where=output)
    if strategy != "auto" and fix.setdefault("strategy", strategy) != strategy:
        raise InputError(f"strategy is {strategy!r} and {fix['strategy']!r}", where="--strategy", hint="give one")
    asked = question(**options)
    with status("planning") as say:
        found = api.plan(asked, fix=fix, progress=say)
    if output is not None:
        planfile.write_plan(found, output)
    if fmt == "json":
        click.echo(json.dumps(planfile.to_dict(found), indent=2))
    else:
        click.echo(plan_text(found))


def _fixes(words: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; numbers and true/false are read as such."""
    fix: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise InputError(f"{word!r} is not NAME=VALUE", where="--fix", hint="for example --fix gamma=6")
        if name in fix:
            raise InputError(f"{name} is fixed twice", where="--fix")
        fix[name] = _value(name, text)
    return fix


def _value(name: str, text: str) -> Any:
    whole = ("gamma", "batch", "ring_slots", "prefill_batch", "draft_batch")
    kinds: dict[str, type] = dict.fromkeys(whole, int) | {"refill": bool}
    if name not in kinds:
        return text
    try:
        return msgspec.convert(text, kinds[name], strict=False)
    except msgspec.ValidationError:
        wanted = "true or false" if kinds[name] is bool else "a whole number"
        raise InputError(f"{name} is {text!r}", where="--fix", hint=f"give {wanted}") from None
