"""`specsim explain`: what bounds a plan, and what would speed it up."""

from __future__ import annotations

import json
from pathlib import Path

import click

from specsim import api
from specsim.cli.options import format_option
from specsim.cli.reporting import check_report, report_option, write_report
from specsim.cli.status import status
from specsim.report.text import explanation_text


@click.command("explain")
@click.argument("plan_file", metavar="PLAN")
@report_option
@format_option("table", "json")
def explain(plan_file: str, report: Path | None, fmt: str) -> None:
    """Say what bounds a plan, and what would speed it up.

    Re-plans with each resource doubled, with other acceptances and without speculation: half a minute.
    """
    check_report(report)
    plan = api.read_plan(plan_file)
    with status("explaining") as say:
        found = api.explain(plan, say)
    if report is not None:
        write_report(report, plan, api.simulate(plan), found)
    if fmt == "json":
        answer = {
            "sentence": found.sentence,
            "tokens_per_second": found.base_tokens_per_second,
            "plain_tokens_per_second": found.plain_tokens_per_second,
            "break_even_acceptance": found.break_even,
            "sensitivities": [
                {"change": s.change, "tokens_per_second": s.tokens_per_second, "gain": s.gain}
                for s in found.sensitivities
            ],
        }
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(explanation_text(found))
