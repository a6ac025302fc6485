"""`specsim export`: a plan as a configuration of an engine that people already use."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import click

from specsim import api
from specsim.answer import Plan
from specsim.cli.options import format_option
from specsim.cli.tables import render
from specsim.errors import InputError
from specsim.exports.export import Export
from specsim.exports.table import ENGINES


@click.command("export")
@click.argument("plan_file", metavar="PLAN")
@click.option("--for", "engine", type=click.Choice(list(ENGINES)), required=True, help="The engine.")
@click.option("-o", "--output", type=click.Path(file_okay=False), help="Write the engine's files to this folder.")
@format_option("table", "json")
def export(plan_file: str, engine: str, output: str | None, fmt: str) -> None:
    """Write a plan as the nearest configuration of another engine.

    Says what is lost in translation, and how fast it would then be. Without -o the files are printed.
    """
    plan = api.read_plan(plan_file)
    found = api.export(plan, for_=engine)
    if output is not None:
        write(found, Path(output))
        found = placed(found, Path(output))
    if fmt == "json":
        click.echo(json.dumps(asdict(found) | {"lost": [loss._asdict() for loss in found.lost]}, indent=2))
    else:
        click.echo("\n".join(report(plan, found)))
        for name, text in found.files.items() if output is None else ():
            click.echo(f"\n{name}\n{'-' * len(name)}\n{text}", nl=False)


def write(found: Export, folder: Path) -> None:
    """The files of an export in `folder`, which is made. Raises InputError where it cannot be written, or has other
    files of these names: nothing is written then."""
    texts = {folder / name: text.encode() for name, text in found.files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            if path.exists() and path.read_bytes() != text:
                raise InputError("is there and differs", where=str(path), hint="remove it, or choose another folder")
        for path, text in texts.items():
            path.write_bytes(text)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(folder)) from None


def placed(found: Export, folder: Path) -> Export:
    """An export whose command names its files in `folder`."""
    words = [shlex.quote(str(folder / word)) if word in found.files else word for word in found.command.split()]
    return replace(found, command=" ".join(words))


def report(plan: Plan, found: Export) -> Iterator[str]:
    """The speed, what is needed, how to run it, and what is lost."""
    case, work, speed = plan.case, plan.case.workload, found.speed
    yield f"{case.target.name} on {case.machine.name}, {work.requests} x {work.name}, with {found.title}"
    planned = f"the plan {plan.predicted.tokens_per_second:.3g}"
    if speed.tokens_per_second is None:
        yield f"  no prediction ({speed.basis}); {planned} useful tokens/s"
    else:
        yield f"  {speed.tokens_per_second:.3g} useful tokens/s predicted ({speed.basis}); {planned}"
    yield f"  {found.command}"
    yield "\nNeeds"
    yield from (f"  {need}" for need in (*found.needs, f"made for {found.version}"))
    yield "\nLost in translation"
    rows = render(("what", "the plan", "there"), found.lost, "lll")
    yield from (f"  {line}" for line in rows.splitlines())
