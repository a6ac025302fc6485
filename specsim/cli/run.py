"""`specsim run`: execute a plan with real weights, and lay what was measured beside what was predicted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from specsim.answer import Plan
from specsim.cli.options import check_picture, format_option, quantity_option
from specsim.cli.running import (
    check_sampling,
    draft_length_option,
    draw_rounds,
    machine_options,
    numerics_option,
    rates,
    sampling_options,
)
from specsim.cli.tables import render
from specsim.errors import InputError, Terminated
from specsim.planfile import read_plan
from specsim.planner.cap import cap_caches
from specsim.runtime import executor, go_on
from specsim.timeline.trace import read_trace
from specsim.units import show
from specsim.validation.record import TRACE

DEFAULT: Final = ParameterSource.DEFAULT
#: options that name a place
PATHS: Final = frozenset({"target", "draft", "prompts"})
#: outputs of which the beginning is shown, and its characters
SAMPLES: Final = 2
SAMPLE_LENGTH: Final = 100


@click.command("run")
@click.argument("plan_file", metavar="[PLAN]", required=False)
@click.option("--target", metavar="DIR", help="Checkpoint directory of the plan's target.")
@click.option("--draft", metavar="DIR", help="Checkpoint directory of the plan's draft.")
@click.option("--prompts", metavar="FILE", help='JSON lines: {"prompt": ...} or {"input_ids": [...]}.')
@click.option("-o", "--output", "out", metavar="DIR", help="Where outputs and metrics go.")
@click.option("--resume", metavar="DIR", help="Instead of -o: go on with the run there, as it was begun.")
@numerics_option
@sampling_options
@draft_length_option
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="For prompts that say nothing; default: the plan's.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End an output where this appears. May be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on after an end token.")
@machine_options
@quantity_option("--kv", "bytes", "Room for the caches of all requests in flight, less than planned: they take turns.")
@click.option("--limit", type=click.IntRange(min=1), help="Run the first N prompts only.")
@click.option("--anyway", is_flag=True, help="Run on a machine that is not what the plan was measured on any more.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    help="Draw rounds in mid-job, predicted above measured: .png, .svg or .pdf.",
)
@format_option("table", "json")
def run(plan_file: str | None, fmt: str, plot: str | None, kv: float | None, **options: Any) -> None:
    """Execute a plan with real weights.

    Writes outputs.jsonl, a line per request as it finishes, then metrics.json and trace.json. Prints measured beside
    predicted. Started by torchrun, it is one of as many ranks as the plan has stages.

    What was cut off goes on with --resume DIR: nothing else needs to be given, and what is given must agree with what
    the run was begun with. With PLAN, --target and --prompts it begins where no run has begun.
    """
    if plot is not None:
        check_picture(plot)  # before the run, not after it
    plan, asked = _asked(plan_file, options.pop("resume"), options.pop("out"), options)
    if kv is not None:
        plan = cap_caches(plan, kv)
    execute = executor("executor.ranks.launch").run_rank
    try:
        result = execute(plan, asked)
    except KeyboardInterrupt as end:
        how = "terminated" if isinstance(end, Terminated) else "interrupted"
        told = f"no run has begun in {asked.out} yet"
        if executor("executor.resume").has_begun(asked.out):
            kept = executor("executor.outputs").count_outputs(asked.out)
            again = go_on(asked.out, plan.decision.policy.stages)
            told = f"{kept} finished outputs are kept in {asked.out}; go on with: {again}"
        click.echo(f"specsim: {how}; {told}", err=True)
        raise
    if result is None:
        return  # the first rank has the result, and tells it
    if result.over:
        click.echo(f"specsim: the run in {asked.out} had ended before; nothing was done", err=True)
    if fmt == "json":
        answer = {"outputs": str(result.outputs), **result.metrics.to_dict()}
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo("\n\n".join(_sections(result)))
    if plot is not None:
        rate = result.metrics.tokens_per_second
        draw_rounds(plan, rate, read_trace(asked.out / TRACE), plot)


def _asked(plan_file: str | None, resume: str | None, out: str | None, options: dict[str, Any]) -> tuple[Plan, Any]:
    """The plan, and the `executor.options.RunOptions`, given or those that a run was begun with."""
    context = click.get_current_context()
    needed = {"PLAN": plan_file, "--target": options["target"], "--prompts": options["prompts"], "-o": out or resume}
    missing = [name for name, value in needed.items() if value is None]
    if resume is not None and out is not None:
        raise InputError(f"--resume {resume} is given too", where=f"-o {out}", hint="give one of them")
    if resume is not None and missing:
        given = {name: v for name, v in options.items() if context.get_parameter_source(name) is not DEFAULT}
        plan, asked = executor("executor.resume").begun(Path(resume))
        return plan if plan_file is None else read_plan(plan_file), replace(asked, **_values(given))
    if missing or plan_file is None:
        raise click.UsageError(f"Missing {' and '.join(missing)}.", context)
    check_sampling(options)
    where = {"out": Path(resume or out or ""), "resume": resume is not None}
    return read_plan(plan_file), executor("executor.options").RunOptions(**_values(options), **where)


def _values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say something, as `RunOptions` has them."""
    values = {name: Path(value) if name in PATHS else value for name, value in options.items() if value is not None}
    return values | ({"throttle": rates(options["throttle"])} if "throttle" in options else {})


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
    if ran.earlier is not None:
        had = f"{ran.earlier.requests} requests had ended and {ran.earlier.tokens} tokens were committed"
        yield f"resumed: {had} before, which count above nowhere"
    if ran.preemptions:
        again = f"{ran.restored_positions} positions were read again"
        yield f"{ran.preemptions} times a request had to wait for room in the caches; {again}"
    yield f"from one task to the next, where all waited for that: {ran.between_tasks:.1%} of the time"


def _sample(output: Any) -> str:
    """The beginning of an output on one line. What a model writes may hold control characters: those are left out."""
    text = output.text if output.text is not None else " ".join(map(str, output.output_ids))
    line = "".join(c if c.isprintable() else " " for c in f"{output.id}: {text[: 2 * SAMPLE_LENGTH]}")
    line = " ".join(line.split())
    return line if len(line) <= SAMPLE_LENGTH else f"{line[: SAMPLE_LENGTH - 3]}..."
