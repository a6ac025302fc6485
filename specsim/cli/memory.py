"""`specsim memory`: what the fast memory is worth, planned anew for an ever smaller budget."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, Final

import click

from specsim import api
from specsim.added import added_items
from specsim.cli.options import check_picture, format_option
from specsim.cli.question import described, question, question_options
from specsim.cli.status import status
from specsim.cli.tables import Cell, emit
from specsim.memory import Peaks, peak_items
from specsim.units import show
from specsim.whatif.budget import KEEP, POINTS, MemoryCurve, Point
from specsim.whatif.knee import Change, generation_change, generation_cut, given_up, keeps, knee, pays_from, sentence

HEADERS: Final = ("budget", "speculating", "without", "speed-up", "plan", "to generate", "gives up")
#: changes that a row of the table has room for
MOST: Final = 3


@click.command("memory")
@question_options
@click.option(
    "--keep", type=float, default=KEEP, show_default=True, help="The share of the speed-up of speculation to be kept."
)
@click.option("--points", type=int, default=POINTS, show_default=True, help="Budgets to plan for, and a few between.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the curve and what is held: .png, .svg or .pdf.")
@format_option("table", "json", "csv")
def memory(keep: float, points: int, plot: str | None, fmt: str, **options: Any) -> None:
    """Say how little memory will do: plans for an ever smaller budget of the VRAM (without a GPU, of the RAM), with
    speculation and without, what each step down gives up, and what speculation adds to memory."""
    if plot is not None:
        check_picture(plot)
    asked = question(**options)
    with status("planning") as say:
        found = api.budget(asked, keep=keep, points=points, progress=say)
    if plot is not None:
        pictures = import_module("specsim.report.budget")  # matplotlib: only who asks for a picture waits for it
        import_module("specsim.report.style").save(pictures.draw(found), plot)
    match fmt:
        case "json":
            click.echo(json.dumps(_json(found), indent=2))
        case "csv":
            rows = found.rows()
            emit(list(rows[0]), [tuple(row.values()) for row in rows], fmt)
        case _:
            _print(found)


def _print(found: MemoryCurve) -> None:
    rows = [_row(p, row, lost) for p, row, lost in zip(found.points, found.rows(), given_up(found), strict=True)]
    emit(HEADERS, rows, "table", "rrrrlrl")
    click.echo(f"\n{sentence(found)}")
    shown = keeps(found)
    if shown is not None and shown.speculative is not None:
        click.echo(f"\nWhat speculation adds to the plan for {show(shown.budget_bytes, 'bytes')}:\n")
        emit(("memory", "phase", "item", "bytes"), _added(added_items(found.case, shown.speculative.decision)), "table")


def _row(point: Point, row: dict[str, Any], lost: tuple[Change, ...]) -> list[Cell]:
    found = point.speculative
    plan = None if found is None else f"{found.decision.strategy}, gamma {row['gamma']}, {row['in_flight']} in flight"
    rates = [f.tokens_per_second if f is not None else None for f in (found, point.plain)]
    times = None if found is None or point.speedup is None else f"{point.speedup:.2f}"
    generating = None if found is None else show(row["generation_bytes"], "bytes")
    most = ", ".join(_lost(change) for change in lost[:MOST] if change.bytes > 0)
    return [show(point.budget_bytes, "bytes"), *rates, times, plan, generating, most]


def _added(peaks: Peaks) -> list[list[Cell]]:
    """A row per item of a memory, in all phases in which it takes as much."""
    phases: dict[tuple[str, str, float], list[str]] = {}
    for phase, memories in peaks.items():
        for name, items in memories.items():
            for item, size in items.items():
                phases.setdefault((name, item, size), []).append(phase)
    return [[name, ", ".join(of), item, show(size, "bytes")] for (name, item, size), of in phases.items()]


def _json(found: MemoryCurve) -> dict[str, Any]:
    whole = {"knee": knee(found), "pays_from": pays_from(found), "keeps": keeps(found)}
    return {
        **described(found.case),
        "memory": found.memory,
        "sentence": sentence(found),
        "keep": found.keep,
        **{f"{name}_bytes": None if point is None else point.budget_bytes for name, point in whole.items()},
        "generation_cut": generation_cut(found),
        "generation_change_bytes": generation_change(found),
        "points": [
            {**row, **_items(found, point), "gives_up": [_change(change) for change in lost]}
            for row, point, lost in zip(found.rows(), found.points, given_up(found), strict=True)
        ],
    }


def _items(found: MemoryCurve, point: Point) -> dict[str, Any]:
    """All bytes of the plan that speculates, and those that speculation adds, by phase, memory and item."""
    if point.speculative is None:
        return {"peak_items": None, "added_items": None}
    decision = point.speculative.decision
    return {"peak_items": peak_items(found.case, decision), "added_items": added_items(found.case, decision)}


def _change(change: Change) -> dict[str, Any]:
    return {"item": change.item, "bytes": change.bytes, "phase": change.phase, "moved_bytes": change.moved_bytes}


def _lost(change: Change) -> str:
    return f"{change.item} {show(change.bytes, 'bytes')}{' (to RAM)' if change.moved else ''}"
