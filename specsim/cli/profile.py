"""`specsim profile`: measure this machine, and write it down as a file for `specsim plan --machine`."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from specsim.cli.options import check_profile, format_option
from specsim.cli.status import status
from specsim.cli.tables import Cell, render
from specsim.errors import InputError
from specsim.facts import text
from specsim.planfile import dump_yaml
from specsim.schema import FACTS
from specsim.units import UNITS, parse, show


@click.command("profile")
@click.option("--quick", is_flag=True, help="A minute; without it some, for more samples of the same.")
@click.option(
    "--disk-path",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=".",
    help="Where the weights lie, or will: a checkpoint that is there is read, else a scratch file. Default: here.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the machine here (.yaml).")
@format_option("table", "json")
def profile(quick: bool, disk_path: Path, output: Path | None, fmt: str) -> None:
    """Measure this machine: its processor, memory, disk, and GPU if there is one.

    Leave it alone meanwhile. specsim plan --machine FILE then plans for what was measured.
    """
    if output is not None:
        check_profile(output)  # before the probes run, not after them
    try:
        from executor.profile.machine import to_profile, warnings
        from executor.profile.measure import LONG, QUICK, measure
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError("measuring needs torch", hint="pip install 'specsim-offload[run]'") from None
    with status("measuring") as say:
        found = measure(disk_path, effort=QUICK if quick else LONG, say=say)
    machine = to_profile(found, datetime.date.today())
    if output is not None:
        _write(output, dump_yaml(machine))
    click.echo(json.dumps(machine, indent=2) if fmt == "json" else profile_text(machine, warnings(found)))


def profile_text(machine: Mapping[str, Any], noisy: Sequence[str]) -> str:
    """What was measured, what disturbed it, and what is taken on trust."""
    rows: list[list[Cell]] = []
    trusted = ["Taken on trust"]
    for name, value, source in _facts(machine):
        if source["kind"] == "measured":
            rows.append([name, value, source.get("spread"), source.get("n")])
        else:
            trusted.append(f"  {name} {value} ({source['why']})")
    table = render(["measured", "value", "spread", "n"], rows, "llrr")
    return "\n\n".join([machine["title"], table, *filter(None, ["\n".join(noisy)]), "\n".join(trusted)])


def _facts(machine: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Name, value for a person, and source of every fact."""
    for kind in ("gpu", "host", "link", "disk"):
        part = machine.get(kind)
        if isinstance(part, Mapping):
            for key, (value, label) in part["facts"].items():
                dimension = FACTS[kind][key].dimension
                if dimension in UNITS and dimension != "ratio":
                    value = show(parse(value, dimension, zero=True), dimension)
                yield f"{kind}.{key}", text(value), part["sources"][label]


def _write(output: Path, words: str) -> None:
    try:
        output.write_text(words, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(output)) from None
