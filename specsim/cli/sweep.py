"""`specsim sweep`: what if? The same question over ranges of its fields, planned anew at every point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from specsim import api
from specsim.cli.fixes import fix_options, fixed
from specsim.cli.options import check_folder, check_picture, format_option
from specsim.cli.question import case_options, question_options
from specsim.cli.tables import Cell, emit, progress
from specsim.errors import InputError
from specsim.whatif.answer import Answer
from specsim.whatif.sweep import Sweep
from specsim.whatif.vary import FIELDS

TABLES: Final = (".csv", ".parquet")
#: added to the name of the results: where answers are kept as they come
JOURNAL: Final = ".journal.jsonl"
#: columns of the table that a person reads, after those of the fields
SHOWN: Final = ("tokens/s", "plan", "in flight", "in VRAM", "by the CPU", "why none")
#: fields that one picture can show
MOST: Final = 3


@click.command("sweep")
@click.option(
    "--vary",
    "words",
    multiple=True,
    required=True,
    metavar="FIELD=VALUES",
    help="A field and its values, a,b,c or LOW..HIGH:COUNT; may be given more than once, for a grid.",
)
@lambda command: question_options(command, required=False)
@fix_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Results: .csv or .parquet.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw curves or a heat map: .png, .svg or .pdf.")
@click.option("--thorough", is_flag=True, help="Search every point in full: some 25 times slower.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes on this machine [default: one for each core].")
@click.option("--cluster", help="Run on a cluster instead: a Dask scheduler (tcp://HOST:PORT) or Ray (ray://...).")
@format_option("table", "csv", "json")
def sweep(
    words: Sequence[str],
    output: Path | None,
    plot: str | None,
    thorough: bool,
    jobs: int | None,
    cluster: str | None,
    fmt: str,
    strategy: str,
    fixes: Sequence[str],
    **options: Any,
) -> None:
    """Plan anew for ranges of any field of the question, and see what changes.

    With -o X every answer is also kept beside the results, in X.journal.jsonl, as soon as it is there: after an
    interruption the same command goes on where it was.
    """
    vary = _vary(words)
    if plot is not None:
        check_picture(plot)
        if len(vary) > MOST:
            raise InputError(f"{len(vary)} fields are varied", where="--plot", hint=f"a picture shows up to {MOST}")
    if output is not None:
        _check_table(output)
    fix = fixed(strategy, fixes)
    asked = case_options(**options)
    if asked["target"] is None and "target" not in vary:
        raise InputError("no target is given", where="--target", hint="name a model, or --vary target=A,B")
    with progress(100, "sweeping") as advance:
        shown = 0

        def tell(done: int, of: int) -> None:
            nonlocal shown
            advance(100 * done // of - shown)
            shown = 100 * done // of

        found = api.sweep(
            vary,
            fix=fix,
            thorough=thorough,
            jobs=jobs or -1,
            cluster=cluster,
            journal=None if output is None else output.with_name(output.name + JOURNAL),
            progress=tell,
            **asked,
        )
    if output is not None:
        _write(found, output)
    if plot is not None:
        pictures = import_module("specsim.report.sweep")  # matplotlib: only who asks for a picture waits for it
        pictures.save(pictures.picture(found), plot)
    if fmt == "table":
        emit([*found.columns()[: len(found.axes)], *SHOWN], _rows(found), fmt)
    elif fmt == "csv":
        emit(found.columns(), found.rows(), fmt)
    else:
        click.echo(json.dumps([dict(zip(found.columns(), row, strict=True)) for row in found.rows()], indent=2))


def _vary(words: Sequence[str]) -> dict[str, str]:
    """FIELD=VALUES pairs."""
    vary: dict[str, str] = {}
    for word in words:
        name, equals, values = word.partition("=")
        name = name.strip()
        if not equals or not values.strip():
            hint = f"for example link=8..64GB/s:5; fields: {', '.join(FIELDS)}"
            raise InputError(f"{word!r} is not FIELD=VALUES", where="--vary", hint=hint)
        if name in vary:
            raise InputError(f"{name} is varied twice", where="--vary", hint="list all its values at once")
        vary[name] = values.strip()
    return vary


def _check_table(path: Path) -> None:
    """Raise InputError for results that could not be written, before they are computed."""
    if path.suffix not in TABLES:
        raise InputError("is no name of a table", where=str(path), hint=f"end it in {' or '.join(TABLES)}")
    check_folder(path)
    if path.suffix == ".parquet":
        try:
            import_module("pyarrow")
        except ImportError:
            hint = "pip install 'specsim-offload[parquet]', or end the name in .csv"
            raise InputError("needs pyarrow, which is not installed", where=str(path), hint=hint) from None


def _write(found: Sweep, path: Path) -> None:
    frame = found.to_frame()
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def _rows(found: Sweep) -> list[list[Cell]]:
    return [
        [*row[: len(found.axes)], a.tokens_per_second, _plan(a), a.in_flight, a.vram_share, a.cpu_share, a.why]
        for row, a in zip(found.rows(), found.answers, strict=True)
    ]


def _plan(found: Answer) -> str | None:
    speculation = f"gamma {found.gamma}" if found.gamma else "no speculation"
    return None if found.strategy is None else f"{found.strategy}, {speculation}"
