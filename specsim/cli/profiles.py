"""`specsim profiles`: look at profile files."""

from __future__ import annotations

from collections.abc import Sequence

import click

from specsim import profiles as library
from specsim.errors import InputError


@click.group("profiles")
def profiles() -> None:
    """Check profile files."""


@profiles.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def check(files: Sequence[str]) -> None:
    """Check profiles: a stranger's GPU, host, link, disk, machine, workload, pair, or a model's config.json.

    Prints every problem, a line each, and exits with 2 if there is any.
    """
    bad = 0
    for file in files:
        problems = library.problems(file)
        for problem in problems:
            click.echo(problem, err=True)
        bad += bool(problems)
        if not problems:
            click.echo(f"{file}: ok")
    if bad:
        raise InputError(f"{bad} of {len(files)} files have problems", where="profiles check")
