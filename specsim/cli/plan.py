"""`specsim plan`: find the fastest lossless way to run a model on a machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from specsim import api, planfile
from specsim.cli.fixes import fix_options, fixed
from specsim.cli.options import format_option, quantity_option
from specsim.cli.question import question, question_options
from specsim.cli.reporting import check_report, report_option, write_report
from specsim.cli.status import status
from specsim.errors import InputError
from specsim.report.text import plan_text


@click.command("plan")
@question_options
@fix_options
@quantity_option(
    "--kv", "bytes", "Room for the caches of all sequences in flight; with less than they need, they take turns."
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the plan here: YAML, or JSON for .json.")
@report_option
@format_option("table", "json")
def plan(
    output: str | None,
    report: Path | None,
    fmt: str,
    strategy: str,
    fixes: Sequence[str],
    kv: float | None,
    **options: Any,
) -> None:
    """Find the fastest lossless way to run a model on a machine.

    Prints the answer, the reason and what to buy next; -o writes the plan for specsim simulate and specsim explain,
    --report a page for a browser.
    """
    fix = fixed(strategy, fixes) | ({"kv_bytes": kv} if kv is not None else {})
    if output is not None and not Path(output).parent.is_dir():  # said before the search, not after it
        raise InputError("cannot be written: its folder does not exist", where=output)
    check_report(report)
    asked = question(**options)
    with status("planning") as say:
        found = api.plan(asked, fix=fix, progress=say)
    if output is not None:
        planfile.write_plan(found, output)
    if report is not None:
        write_report(report, found, api.simulate(found))
    if fmt == "json":
        click.echo(json.dumps(planfile.to_dict(found), indent=2))
    else:
        click.echo(plan_text(found))
