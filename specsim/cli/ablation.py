"""`specsim ablation`: what each decision of the planner is worth, for one question."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from specsim import api
from specsim.cli.options import check_picture, format_option
from specsim.cli.question import question, question_options
from specsim.cli.status import status
from specsim.cli.tables import emit
from specsim.planner.ablation import Ablation

HEADERS = ("decision", "fixed to", "as in", "tokens/s", "share", "best plan then")


@click.command("ablation")
@question_options
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the shares as bars: .png, .svg or .pdf.")
@format_option("table", "json", "csv")
def ablation(plot: str | None, fmt: str, **options: Any) -> None:
    """Say what each decision of the planner is worth.

    Fixes one decision at a time to what a published system fixes it to, and makes all others anew: about a minute.
    """
    if plot is not None:
        check_picture(plot)
    asked = question(**options)
    with status("planning") as say:
        found = api.ablation(asked, progress=say)
    if plot is not None:
        pictures = import_module("specsim.report.pictures")  # matplotlib: only who asks for a picture waits for it
        pictures.save(pictures.ablations([found]), plot)
    emit(HEADERS, rows(found), fmt)


def rows(found: Ablation) -> list[tuple[str, str, str, float, float, str]]:
    """The full plan, then a row per decision taken away."""
    full = ("none", "", "specsim", found.tokens_per_second, 1.0, found.plan)
    minus = [(r.minus.decision, r.minus.words, r.minus.like, r.tokens_per_second, r.share, r.plan) for r in found.rows]
    return [full, *minus]
