"""`specsim run`: execute a plan with real weights, and lay what was measured beside what was predicted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from specsim.cli.options import check_picture, format_option
from specsim.cli.running import draw_rounds, rates
from specsim.cli.tables import render
from specsim.errors import InputError, Terminated
from specsim.planfile import read_plan
from specsim.runtime import executor
from specsim.timeline.trace import read_trace
from specsim.units import show
from specsim.validation.record import TRACE

#: outputs of which the beginning is shown, and its characters
SAMPLES: Final = 2
SAMPLE_LENGTH: Final = 100


@click.command("run")
@click.argument("plan_file", metavar="PLAN")
@click.option("--target", required=True, metavar="DIR", help="Checkpoint directory of the plan's target.")
@click.option("--draft", metavar="DIR", help="Checkpoint directory of the plan's draft.")
@click.option("--prompts", required=True, metavar="FILE", help='JSON lines: {"prompt": ...} or {"input_ids": [...]}.')
@click.option("-o", "--output", "out", required=True, metavar="DIR", help="Where outputs and metrics go.")
@click.option(
    "--numerics",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="exact: the same tokens whatever the plan. fast: rounding may depend on the batch.",
)
@click.option("--temperature", type=click.FloatRange(min=0), help="Sample; without it, decode greedily.")
@click.option("--top-k", type=click.IntRange(min=1), help="Sample from the K likeliest tokens.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Sample from the likeliest tokens up to P.")
@click.option("--seed", type=click.IntRange(min=0), help="Of sampling; 0 if not given.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="For prompts that say nothing; default: the plan's.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End an output where this appears. May be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on after an end token.")
@click.option(
    "--throttle", "throttles", multiple=True, metavar="NAME=RATE", help="Slow down disk or link, e.g. disk=500MB/s."
)
@click.option("--emulate-gpu", is_flag=True, help="Play the plan's GPU on the CPU.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads that compute.")
@click.option("--limit", type=click.IntRange(min=1), help="Run the first N prompts only.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    help="Draw rounds in mid-job, predicted above measured: .png, .svg or .pdf.",
)
@format_option("table", "json")
def run(plan_file: str, fmt: str, throttles: Sequence[str], plot: str | None, **options: Any) -> None:
    """Execute a plan with real weights.

    Writes outputs.jsonl, a line per request as it finishes, then metrics.json and trace.json. Prints measured beside
    predicted.
    """
    if plot is not None:
        check_picture(plot)  # before the run, not after it
    plan = read_plan(plan_file)
    _check_sampling(options)
    asked = executor("executor.options").RunOptions(
        **options
        | {name: Path(options[name]) for name in ("target", "prompts", "out")}
        | {"draft": Path(options["draft"]) if options["draft"] else None}
        | {"temperature": options["temperature"] or 0.0, "seed": options["seed"] or 0},
        throttle=rates(throttles),
    )
    execute = executor("executor.run").run
    try:
        result = execute(plan, asked)
    except KeyboardInterrupt as end:
        kept = executor("executor.outputs").count_outputs(asked.out)
        how = "terminated" if isinstance(end, Terminated) else "interrupted"
        click.echo(f"specsim: {how}; {kept} finished outputs are kept in {asked.out}", err=True)
        raise
    if fmt == "json":
        answer = {"outputs": str(result.outputs), **result.metrics.to_dict()}
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo("\n\n".join(_sections(result)))
    if plot is not None:
        rate = result.metrics.tokens_per_second
        draw_rounds(plan, rate, read_trace(asked.out / TRACE), plot)


def _check_sampling(options: Mapping[str, Any]) -> None:
    for name in ("top_k", "top_p", "seed"):
        if options[name] is not None and not options["temperature"]:
            hint = "give a --temperature above 0, or leave it out"
            raise InputError("greedy decoding draws nothing", where=f"--{name.replace('_', '-')}", hint=hint)


def _sections(result: Any) -> Iterator[str]:
    """What an `executor.options.RunResult` says to a person."""
    metrics = result.metrics
    yield render(("", "measured", "predicted", "ratio"), metrics.comparison(), align="lrrr")
    yield "\n".join(_remarks(metrics))
    files = f"outputs in {result.outputs}; beside it metrics.json and, as a trace for Perfetto, trace.json"
    yield "\n".join([files, *map(_sample, result.samples[:SAMPLES])])


def _remarks(metrics: Any) -> Iterator[str]:
    planned, ran = metrics.predicted, metrics
    if (planned.requests, planned.useful_tokens) != (ran.requests, ran.useful_tokens):
        yield (
            f"predicted for {planned.requests} requests and {planned.useful_tokens} useful tokens, "
            f"measured with {ran.requests} and {ran.useful_tokens}"
        )
    if ran.acceptance:
        shares = " ".join(f"{share:.2f}" for share in ran.acceptance)
        yield f"acceptance by position {shares}, of {ran.proposed} proposed tokens"
    moved = ", ".join(f"{stream} {show(count, 'bytes')}" for stream, count in ran.bytes_moved.items() if count)
    yield f"moved {moved or 'nothing'} in {ran.rounds} rounds; loading took {show(ran.load_s, 'seconds')}"
    yield from ran.shrunk
    yield f"from one task to the next, where all waited for that: {ran.between_tasks:.1%} of the time"


def _sample(output: Any) -> str:
    """The beginning of an output on one line. What a model writes may hold control characters: those are left out."""
    text = output.text if output.text is not None else " ".join(map(str, output.output_ids))
    line = "".join(c if c.isprintable() else " " for c in f"{output.id}: {text[: 2 * SAMPLE_LENGTH]}")
    line = " ".join(line.split())
    return line if len(line) <= SAMPLE_LENGTH else f"{line[: SAMPLE_LENGTH - 3]}..."
