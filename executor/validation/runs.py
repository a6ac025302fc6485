"""One configuration: plan it, run it, compare. What it leaves in its folder is enough to tell that it is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from executor.options import RunOptions
from executor.outputs import write_whole
from executor.run import run
from executor.validation.machines import GB, compute_threads, machine_of
from executor.validation.pairs import write_prompts
from specsim import api, planfile
from specsim.answer import Plan
from specsim.hardware import Machine
from specsim.report.validation import comparison_dict
from specsim.validation.configurations import OUTPUT_TOKENS, PROMPT_TOKENS, SHAPES, Configuration
from specsim.validation.record import read_run
from specsim.validation.throughput import compare

PLAN: Final = "plan.yaml"
DONE: Final = "validation.json"
PROMPTS: Final = "prompts.jsonl"


def plan_for(configuration: Configuration, measured: Machine, models: Path) -> Plan:
    """The plan of a configuration for the machine that was measured; `models` is the folder of its pair.

    Raises InfeasibleError where its memory is too small.
    """
    shape = SHAPES[configuration.shape]
    target = api.model(models / "target")
    fix: dict[str, Any] = {
        "strategy": configuration.strategy,
        "gamma": configuration.gamma,
        "refill": configuration.refill,
    }
    if configuration.way == "link":
        fix |= {"attention": "gpu", "ffn": "gpu"}
    return api.plan(
        machine=machine_of(configuration, measured, float(target.weight_bytes)),
        target=models / "target",
        draft=models / "draft" if configuration.gamma else None,
        acceptance=shape.agreement if configuration.gamma else None,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        requests=configuration.requests,
        fix=fix | {"batch": configuration.batch},
    )


def run_configuration(configuration: Configuration, measured: Machine, models: Path, folder: Path) -> None:
    """Plan, run and compare; `folder`/validation.json comes last. What an interrupted run left there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    plan = plan_for(configuration, measured, models)
    folder.mkdir(parents=True)
    planfile.write_plan(plan, folder / PLAN)
    write_prompts(SHAPES[configuration.shape], configuration.requests, folder / PROMPTS)
    options = RunOptions(
        target=models / "target",
        prompts=folder / PROMPTS,
        out=folder,
        draft=models / "draft" if plan.decision.policy.draft is not None else None,
        throttle={"disk": configuration.gigabytes_per_s * GB} if configuration.way == "disk" else {},
        emulate_gpu=configuration.way == "link",
        threads=compute_threads(configuration.way),
    )
    run(plan, options)
    ran, timelines = read_run(folder)
    found = compare(plan, ran, timelines["predicted"], timelines["measured"])
    write_whole(folder / DONE, json.dumps(comparison_dict(plan, found), indent=2) + "\n")
