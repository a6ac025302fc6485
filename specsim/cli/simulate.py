"""`specsim simulate`: the timeline of a plan, as a table, a trace and a picture."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from pathlib import Path

import click

from specsim import api
from specsim.cli.options import format_option
from specsim.cli.reporting import check_report, report_option, write_report
from specsim.cli.tables import emit
from specsim.timeline import write_trace


@click.command("simulate")
@click.argument("plan_file", metavar="PLAN")
@click.option(
    "--trace", type=click.Path(dir_okay=False), help="Write a Perfetto trace (JSON) of the round and the prefill."
)
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw the round as a Gantt picture: .png, .svg or .pdf.")
@report_option
@format_option("table", "json", "csv")
def simulate(plan_file: str, trace: str | None, plot: str | None, report: Path | None, fmt: str) -> None:
    """Show the timeline of a plan: one round in mid-job, by stream and kind of task."""
    check_report(report)
    plan = api.read_plan(plan_file)
    found = api.simulate(plan)
    if trace is not None:
        write_trace(trace, {"round": found.round, "prefill": found.prefill})
    if plot is not None:
        rounds = import_module("specsim.report.rounds")  # matplotlib: only who asks for a picture waits for it
        import_module("specsim.report.style").save(rounds.planned(plan, found.round), plot)
    if report is not None:
        write_report(report, plan, found)
    busy: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    for span in found.round.spans:
        sums = busy[span.stream, span.kind]
        for i, amount in enumerate((1.0, span.seconds, span.bytes / 1e9, span.flops / 1e12)):
            sums[i] += amount
    whole = found.round.makespan
    rows = [
        (stream, kind, int(n), seconds, seconds / whole, gigabytes, teraflops)
        for (stream, kind), (n, seconds, gigabytes, teraflops) in sorted(busy.items())
    ]
    emit(("stream", "kind", "tasks", "seconds", "share", "GB", "TFLOP"), rows, fmt)
    if fmt == "table":
        job = found.job
        click.echo(
            f"\nround {whole:.4g} s; job {job.makespan_s:.4g} s, of which prefill {job.prefill_s:.4g} s, ", nl=False
        )
        click.echo(f"{len(job.rounds)} rounds; {job.tokens_per_second:.4g} useful tokens/s")
