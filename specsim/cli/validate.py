"""`specsim validate`: predict, then measure, and say which term of the prediction is most wrong."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from specsim import api, planfile
from specsim.answer import Plan
from specsim.cli.demo import demo as demonstrate
from specsim.cli.fixes import fix_options, fixed
from specsim.cli.matrix import matrix as run_matrix
from specsim.cli.options import check_profile, format_option, quantity_option
from specsim.cli.question import question, question_options
from specsim.cli.running import draw_rounds, rates
from specsim.cli.status import status
from specsim.cli.tables import emit, render
from specsim.errors import InputError
from specsim.report.validation import HEADERS, comparison_dict, head, rows
from specsim.runtime import executor
from specsim.timeline import Timeline
from specsim.validation.pair import pair_profile
from specsim.validation.throughput import Comparison
from specsim.validation.verdict import sentence

FAILED: Final = 1
#: the p90 of the error that predictions are to stay below on machines that were measured
TOLERANCE: Final = 0.2
#: options that go to the executor as they are
EXECUTION: Final = ("numerics", "emulate_gpu", "threads", "limit")
PLAN, REPORT, PICTURE = "plan.yaml", "validation.json", "validation.png"


@click.command("validate")
@click.argument("plan_file", metavar="[PLAN]", required=False)
@click.option("--demo", is_flag=True, help="Measure this machine quickly, and validate the shipped pair on it.")
@click.option("--matrix", is_flag=True, help="Run the test configurations; goes on where out/matrix is.")
@click.option("--fit", is_flag=True, help="With --matrix: the configurations that the model error comes from.")
@click.option("--run", "ran", metavar="DIR", help="Compare PLAN with a run that is done, and run nothing.")
@click.option("--prompts", metavar="FILE", help='JSON lines: {"prompt": ...} or {"input_ids": [...]}.')
@click.option("-o", "--output", "out", metavar="DIR", help="Where everything goes. Default: a new directory here.")
@quantity_option("--tolerance", "ratio", f"Error of the throughput that is still good. Default: {TOLERANCE:.0%}.")
@click.option(
    "--write-pair",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the measured acceptance here, as a profile for --acceptance (.yaml).",
)
@click.option(
    "--numerics",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="As with specsim run.",
)
@click.option("--throttle", "throttles", multiple=True, metavar="NAME=RATE", help="Slow down disk or link.")
@click.option("--emulate-gpu", is_flag=True, help="Play the plan's GPU on the CPU.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads that compute.")
@click.option("--limit", type=click.IntRange(min=1), help="Run the first N prompts only.")
@partial(question_options, required=False)
@fix_options
@format_option("table", "json", "csv")
def validate(
    plan_file: str | None,
    demo: bool,
    matrix: bool,
    fit: bool,
    ran: str | None,
    out: str | None,
    tolerance: float | None,
    write_pair: Path | None,
    fmt: str,
    **options: Any,
) -> int:
    """Predict, then measure, then say where the error lies.

    Validates PLAN, or a plan that is made from the options of specsim plan. --target and --draft are the checkpoints.
    Writes the plan, what specsim run writes, validation.json and validation.png. Exit status 1 where the error exceeds
    the tolerance.
    """
    if write_pair is not None:
        check_profile(write_pair)
    if matrix:
        run_matrix(None if out is None else Path(out), fit=fit, fmt=fmt)
        return 0
    if ran is not None:
        if plan_file is None:
            raise InputError("a run is compared with its plan", where="--run", hint="give the plan file, too")
        plan, folder = planfile.read_plan(plan_file), Path(ran)
    else:
        folder = _new_folder(out)
        plan, asked = demonstrate(folder) if demo else _asked(plan_file, folder, options)
        planfile.write_plan(plan, folder / PLAN)
        executor("executor.run").run(plan, asked)
    validation = api.validate(plan, folder)
    found = validation.comparison
    _write(plan, found, validation.timelines, folder if out is None else Path(out))
    if write_pair is not None:
        profile = pair_profile(plan, validation.ran, write_pair.stem, datetime.date.today())
        write_pair.write_text(planfile.dump_yaml(profile), encoding="utf-8")
    if fmt == "json":
        click.echo(json.dumps(comparison_dict(plan, found), indent=2))
    elif fmt == "csv":
        emit(HEADERS, list(rows(found)), "csv")
    else:
        click.echo("\n".join(head(plan, found)))
        click.echo("\n" + render(HEADERS, list(rows(found)), "l" + "r" * (len(HEADERS) - 1)))
        click.echo(f"\n{sentence(found)}\n\npicture in {(folder if out is None else Path(out)) / PICTURE}")
    return FAILED if abs(found.error) > (TOLERANCE if tolerance is None else tolerance) else 0


def _new_folder(out: str | None) -> Path:
    """The directory `out`, made where it is not there, or one that is named by the time."""
    folder = Path(out or f"validation-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be made: {error.strerror}", where=str(folder), hint="choose another -o") from None
    if any(folder.iterdir()):
        raise InputError("is not empty", where=str(folder), hint="choose another -o")
    return folder


def _asked(plan_file: str | None, out: Path, options: dict[str, Any]) -> tuple[Plan, Any]:
    """The plan that is in the file, or that the options ask for, and how it is to be run."""
    execution = {name: options.pop(name) for name in EXECUTION}
    throttle, prompts = rates(options.pop("throttles")), options.pop("prompts")
    target, draft = options["target"], options["draft"]
    if target is None or prompts is None:
        missing = "--target" if target is None else "--prompts"
        raise InputError(f"{missing} is missing", where="validate", hint="give it, or try --demo")
    if plan_file is not None:
        plan = planfile.read_plan(plan_file)
    else:
        fix = fixed(options.pop("strategy"), options.pop("fixes"))
        with status("planning") as say:
            plan = api.plan(question(**options), fix=fix, progress=say)
    run_options = executor("executor.options").RunOptions(
        target=Path(target),
        prompts=Path(prompts),
        out=out,
        draft=Path(draft) if plan.case.draft is not None and draft != "none" else None,
        throttle=throttle,
        **execution,
    )
    return plan, run_options


def _write(plan: Plan, found: Comparison, timelines: Mapping[str, Timeline], folder: Path) -> None:
    executor("executor.outputs").write_whole(folder / REPORT, json.dumps(comparison_dict(plan, found), indent=2) + "\n")
    draw_rounds(plan, found.measured, timelines, str(folder / PICTURE))
