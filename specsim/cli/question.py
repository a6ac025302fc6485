"""The options that ask a question, shared by every command that plans: which models, on which machine, for which work.

@click.command("plan")
@question_options
def plan(**options): case = question(**options)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Final, TypeVar

import click

from specsim import api
from specsim.case import Case
from specsim.cli.options import quantity_option

F = TypeVar("F", bound=Callable[..., Any])

TARGET: Final = "The big model: profile name, checkpoint directory or config.json."
OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--machine", help="A machine by profile name or file (see specsim list machines)."),
    click.option(
        "--gpu", help="A GPU by profile name or file; its default host is taken unless --host is given. none: no GPU."
    ),
    click.option("--host", help="A host by profile name or file."),
    click.option("--disk", help="A disk by profile name or file."),
    quantity_option("--vram", "bytes", "VRAM that the plan may use, for example 22GiB."),
    quantity_option("--ram", "bytes", "RAM that the plan may use; without a GPU, the fast memory's budget."),
    quantity_option("--link", "bytes/s", "Rate of a large pinned copy over the link, for example 12GB/s."),
    quantity_option("--disk-bandwidth", "bytes/s", "Rate of a sequential read, for example 3GB/s."),
    click.option(
        "--devices", type=click.IntRange(min=1), help="Number of like devices: GPUs, or machines without one."
    ),
    quantity_option("--peer", "bytes/s", "Rate of a large transfer between two devices, for example 50GB/s."),
    click.option("--draft", default="none", show_default=True, help="The small model, likewise; none, auto, or ngram."),
    click.option("--workload", help="A workload by profile name or file."),
    click.option("--prompt-tokens", type=click.IntRange(min=1), help="Tokens of every prompt."),
    click.option("--output-tokens", type=click.IntRange(min=1), help="Tokens that every request wants."),
    click.option("--requests", type=click.IntRange(min=1), help="Number of requests."),
    click.option("--acceptance", help="Chance that a drafted token is accepted, or a pair profile."),
    click.option("--dtype", help="bfloat16, float16 or float32 instead of the config's own."),
)


def question_options(command: F, *, required: bool = True) -> F:
    """Add the options to a command, in this order. Where no target is `required`, there is another way to ask."""
    options = (click.option("--target", required=required, help=TARGET), *OPTIONS)
    return reduce(lambda decorated, option: option(decorated), reversed(options), command)


def question(**options: Any) -> Case:
    """The case that the options describe."""
    return api.case(**case_options(**options))


def case_options(*, link: float | None, disk_bandwidth: float | None, **options: Any) -> dict[str, Any]:
    """The options under the names that `api.case` has for them."""
    return {**options, "link_bytes_per_s": link, "disk_bytes_per_s": disk_bandwidth}


def described(case: Case) -> dict[str, Any]:
    """What a case asks, as every answer in JSON begins."""
    return {
        "machine": case.machine.name,
        "target": case.target.name,
        "draft": case.draft.name if case.draft is not None else None,
        "workload": case.workload.name,
        "requests": case.workload.requests,
    }
