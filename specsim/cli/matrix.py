"""`specsim validate --matrix`: a set of configurations, run one by one, and how good the predictions were.

Models, the machine's measurement and finished runs stay in `WORK`, so that an interrupted matrix goes on where it was.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from specsim import __version__
from specsim.cli.status import status
from specsim.cli.tables import Cell, emit, render, to_csv
from specsim.errors import InfeasibleError, InputError
from specsim.hardware import Machine
from specsim.runtime import executor
from specsim.validation.configurations import FIT, SHAPES, TEST, Configuration
from specsim.validation.interval import LEVEL
from specsim.validation.scores import Outcome, scores, worst

WORK: Final = Path("out/matrix")
DONE: Final = "validation.json"
HEADERS: Final = ("configuration", "planned", "low", "high", "measured", "error", "why")


def matrix(out: Path | None, *, fit: bool, fmt: str) -> None:
    """Run what is left of the list, print all outcomes (table, json or csv), and write them with their scores and a
    picture to `out`, which is `WORK` if not given."""
    configurations = FIT if fit else TEST
    for way in ("disk", "link"):
        if wanted := [c for c in configurations if c.way == way and not (_folder(c) / DONE).exists()]:
            _models(wanted)
            _run(wanted, _machine(way))
    name = "matrix-fit" if fit else "matrix"
    _report([_outcome(c) for c in configurations], WORK if out is None else out, name, fmt)


def _pair(configuration: Configuration) -> Path:
    """Named by what the models are, so that others of the same name are not taken for them."""
    sizes = hashlib.sha256(repr(SHAPES[configuration.shape]).encode()).hexdigest()[:8]
    return WORK / "pairs" / f"{configuration.shape}-{sizes}"


def _folder(configuration: Configuration) -> Path:
    return WORK / "runs" / _pair(configuration).name / configuration.name


def _models(wanted: Sequence[Configuration]) -> None:
    make = executor("executor.validation.pairs").make_models
    for configuration in wanted:
        with status(f"making {configuration.shape}") as say:
            make(SHAPES[configuration.shape], _pair(configuration), say)


def _run(wanted: Sequence[Configuration], machine: Machine) -> None:
    run = executor("executor.validation.runs").run_configuration
    for number, configuration in enumerate(wanted, start=1):
        with status(f"{number} of {len(wanted)}") as say:
            say(configuration.name)
            try:
                run(configuration, machine, _pair(configuration), _folder(configuration))
            except InfeasibleError as error:
                raise InputError(str(error), where=configuration.name) from None


def _machine(way: str) -> Machine:
    measure = executor("executor.validation.machines").measured_machine
    models = next((WORK / "pairs").glob("*/target"))
    with status("measuring") as say:
        say(f"this machine, for settings with a slow {way}")
        machine: Machine = measure(way, models, WORK / f"machine-{way}.yaml")
    return machine


def _outcome(configuration: Configuration) -> Outcome:
    found: dict[str, Any] = json.loads((_folder(configuration) / DONE).read_text(encoding="utf-8"))
    speed, ends = found["tokens_per_second"], found["interval"]
    return Outcome(
        configuration.name, speed["planned"], ends["low"], ends["high"], speed["measured"], found["sentence"]
    )


def _report(outcomes: Sequence[Outcome], out: Path, name: str, fmt: str) -> None:
    total = scores(outcomes)
    values = {
        "date": f"{datetime.date.today()}",
        "version": __version__,
        "level": LEVEL,
        "scores": asdict(total),
        "outcomes": [asdict(outcome) | {"error": outcome.error} for outcome in outcomes],
    }
    rows: list[list[Cell]] = [[o.name, o.planned, o.low, o.high, o.measured, o.error, o.why] for o in outcomes]
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    (out / f"{name}.csv").write_text(to_csv(HEADERS, rows), encoding="utf-8")
    pictures = import_module("specsim.report.scatter")  # matplotlib: slow to load
    pictures.save(pictures.scatter(outcomes), out / f"{name}.png")
    if fmt == "json":
        click.echo(json.dumps(values, indent=2))
        return
    if fmt == "csv":
        emit(HEADERS, rows, "csv")
        return
    click.echo(render(HEADERS[:-1], [[*row[:-2], f"{row[-2]:+.1%}"] for row in rows], "lrrrrr"))
    click.echo(
        f"\n{total.count} configurations: median error {total.median:.1%}, p90 {total.p90:.1%}, rank correlation "
        f"{total.rank:.3f}; intervals of {LEVEL:.0%} hold {total.coverage:.0%}\n\nThe worst"
    )
    for outcome in worst(outcomes):
        click.echo(f"  {outcome.name}: {outcome.why}")
    click.echo(f"\nscores and picture in {out}: {name}.json, {name}.csv, {name}.png")
