"""`specsim compare`: every way to run a model on a machine, side by side."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import click

from specsim import api
from specsim.cli.options import check_picture, format_option
from specsim.cli.question import described, question, question_options
from specsim.cli.status import status
from specsim.cli.tables import emit
from specsim.planner.compare import Comparison
from specsim.planner.reason import SAY, sentence
from specsim.units import GiB

HEADERS = ("way", "plan", "tokens/s", "s/token", "VRAM GiB", "RAM GiB", "waits for", "share")


@click.command("compare")
@question_options
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the throughputs as bars: .png, .svg or .pdf.")
@format_option("table", "json", "csv")
def compare(plot: str | None, fmt: str, **options: Any) -> None:
    """Show every way to run a model on a machine side by side.

    Our best plan, the best of each other schedule with and without speculation, and published systems under the
    policies that they choose. tokens/s are useful ones; s/token is from a sequence's one token to its next.
    """
    if plot is not None:
        check_picture(plot)
    asked = question(**options)
    with status("comparing") as say:
        found = api.compare(asked, progress=say)
    if plot is not None:
        pictures = import_module("specsim.report.pictures")  # matplotlib: only who asks for a picture waits for it
        pictures.save(pictures.comparison(found), plot)
    if fmt == "json":
        click.echo(json.dumps(_json(found), indent=2))
        return
    emit(HEADERS, _rows(found), fmt)
    if fmt == "table":
        click.echo(f"\n{sentence(found)}")
        for name, why in found.left_out.items():
            click.echo(f"left out: {name}: {why}")


def _rows(found: Comparison) -> list[tuple[str | float | None, ...]]:
    return [
        (
            e.name,
            e.plan,
            e.tokens_per_second,
            e.latency_s,
            e.peak_bytes.get("vram", 0.0) / GiB,
            e.peak_bytes.get("ram", 0.0) / GiB,
            SAY.get(e.waits_for, e.waits_for),
            e.waits,
        )
        for e in found.entries
    ]


def _json(found: Comparison) -> dict[str, Any]:
    return {
        **described(found.case),
        "why": sentence(found),
        "ways": [
            {
                "name": e.name,
                "ours": e.ours,
                "plan": e.plan,
                "tokens_per_second": e.tokens_per_second,
                "seconds_per_token": e.latency_s,
                "peak_bytes": {memory: round(size) for memory, size in e.peak_bytes.items()},
                "bottleneck": e.waits_for,
                "waits": e.waits,
                "prefill_s_per_token": e.prefill_s,
                "pass_s": e.pass_s,
                "tokens_per_pass": e.tokens_per_pass,
                "busy_s_per_pass": dict(e.busy_s),
            }
            for e in found.entries
        ],
        "left_out": dict(found.left_out),
    }
