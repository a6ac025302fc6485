"""`specsim doctor`: what this machine has, what works on it, and how to get what does not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from specsim import __version__
from specsim.cli.options import format_option
from specsim.cli.status import status
from specsim.cli.tables import render
from specsim.doctor import advice, facts, look, purposes

NO_PLANS = 1


@click.command("doctor")
@format_option("table", "json")
def doctor(fmt: str) -> int:
    """Say what this machine has, what works on it, and how to get what does not.

    The exit status is 0 where planning works. Measures nothing: see specsim profile.
    """
    with status("looking") as say:
        here = look(Path(), say)
    told, hints = purposes(here), advice(here)
    if fmt == "json":
        found = {"specsim": __version__, "machine": asdict(here), "works": [asdict(p) for p in told], "advice": hints}
        click.echo(json.dumps(found, indent=2, default=str))
    else:
        click.echo(render(("this machine", "has"), list(facts(here).items())))
        rows = [(p.name, "yes" if p.works else "no", p.found) for p in told]
        click.echo(f"\n{render(('for', 'works', 'with, or why not'), rows)}")
        remedies = [f"{p.name}: {p.remedy}" for p in told if p.remedy]
        if remedies:
            click.echo("\nHow to get what does not work\n" + "\n".join(f"  {line}" for line in remedies))
        if hints:
            click.echo("\nWhat would work better otherwise\n" + "\n".join(f"  {line}" for line in hints))
    return 0 if told[0].works else NO_PLANS
