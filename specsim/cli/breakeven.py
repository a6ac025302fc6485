"""`specsim breakeven`: from which acceptance speculation pays, by the rate at which weights come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from specsim import api
from specsim.cli.options import Quantity, check_picture, format_option
from specsim.cli.question import question, question_options
from specsim.cli.status import status
from specsim.cli.tables import emit
from specsim.whatif.breakeven import BreakEvenMap, Over, Point, break_even, sentence

HEADERS = ("bytes_per_s", "acceptance", "plain", "speculative", "ratio")


@click.command("breakeven")
@question_options
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=Quantity("bytes/s"),
    help="A rate to plan for, of the link or the disk; by default a quarter to four times this machine's.",
)
@click.option(
    "--over",
    type=click.Choice(["link", "disk"]),
    help="What weights come over [default: what the best plan without speculation uses for longer].",
)
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the map: .png, .svg or .pdf.")
@click.option("--thorough", is_flag=True, help="Search in full for each, ten times as long, for a few per cent.")
@format_option("table", "json", "csv")
def breakeven(
    rates: Sequence[float], over: Over | None, plot: str | None, thorough: bool, fmt: str, **options: Any
) -> None:
    """Map from which acceptance speculation pays, by the rate at which weights come.

    A cell is the best plan that speculates over the best that does not, in useful tokens/s, both planned anew.
    """
    if plot is not None:
        check_picture(plot)
    asked = question(**options)
    with status("mapping") as say:
        found = api.breakeven(asked, over=over, rates=rates or None, thorough=thorough, progress=say)
    if plot is not None:
        pictures = import_module("specsim.report.breakeven")  # matplotlib: only who asks for a picture waits for it
        import_module("specsim.report.style").save(pictures.draw(found), plot)
    match fmt:
        case "json":
            click.echo(json.dumps(_json(found), indent=2))
        case "csv":
            emit(HEADERS, [tuple(_point(p).values()) for p in found.points], fmt)
        case _:
            _print(found)


def _print(found: BreakEvenMap) -> None:
    """A row per acceptance, the highest first, and a column per rate."""
    columns = [found.column(rate) for rate in found.rates]
    rows = [[f"{row[0].acceptance:g}", *(f"{p.ratio:.2f}" for p in row)] for row in zip(*columns, strict=True)][::-1]
    starts = [break_even(column) for column in columns]
    rows.append(["pays from", *("never" if at is None else f"{at:.2f}" for at in starts)])
    emit(["acceptance", *(f"{rate / 1e9:.3g} GB/s" for rate in found.rates)], rows, "table", "l" + "r" * len(columns))
    click.echo(f"\n{sentence(found)}")


def _point(p: Point) -> dict[str, float | None]:
    """A ratio without a plain plan is none."""
    ratio = p.ratio if p.plain else None
    values = (p.bytes_per_s, p.acceptance, p.plain, p.speculative, ratio)
    return dict(zip(HEADERS, values, strict=True))


def _json(found: BreakEvenMap) -> dict[str, Any]:
    case = found.case
    return {
        "machine": case.machine.name,
        "target": case.target.name,
        "draft": case.draft.name if case.draft is not None else "ngram",
        "over": found.over,
        "sentence": sentence(found),
        "here": _point(found.here),
        "pays_from": [{"bytes_per_s": rate, "acceptance": break_even(found.column(rate))} for rate in found.rates],
        "points": [_point(p) for p in found.points],
    }
