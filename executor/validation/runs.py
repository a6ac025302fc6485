"""Plans and runs in a setting, and a whole configuration: plan, run, compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from executor.options import RunOptions, RunResult
from executor.outputs import write_whole
from executor.run import run
from executor.validation.machines import GB, compute_threads, machine_of
from executor.validation.pairs import write_prompts
from specsim import api, planfile
from specsim.answer import Plan
from specsim.case import Case
from specsim.hardware import Machine
from specsim.report.validation import comparison_dict
from specsim.validation.configurations import OUTPUT_TOKENS, PROMPT_TOKENS, SHAPES, Configuration, Setting
from specsim.validation.record import read_run
from specsim.validation.throughput import compare

PLAN: Final = "plan.yaml"
DONE: Final = "validation.json"
PROMPTS: Final = "prompts.jsonl"


def question(setting: Setting, measured: Machine, models: Path, requests: int, *, speculate: bool = True) -> Case:
    """What is asked in a setting of the machine that was measured; `models` is the folder of the shape's pair."""
    target = api.model(models / "target")
    return api.case(
        machine=machine_of(setting, measured, float(target.weight_bytes)),
        target=models / "target",
        draft=models / "draft" if speculate else None,
        acceptance=SHAPES[setting.shape].agreement if speculate else None,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        requests=requests,
    )


def plan_for(setting: Setting, case: Case, **fix: Any) -> Plan:
    """The best plan with what is fixed. Raises InfeasibleError where the setting's memory is too small."""
    if setting.way == "link":  # an emulated GPU is the CPU: it cannot be both
        fix |= {"attention": "gpu", "ffn": "gpu"} | ({"draft_kv": "vram"} if case.draft is not None else {})
    return api.plan(case, fix=fix)


def execute(plan: Plan, setting: Setting, models: Path, folder: Path) -> RunResult:
    """Run a plan in the setting that it was made for. What an interrupted run left in `folder` is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    planfile.write_plan(plan, folder / PLAN)
    write_prompts(SHAPES[setting.shape], plan.case.workload.requests, folder / PROMPTS)
    options = RunOptions(
        target=models / "target",
        prompts=folder / PROMPTS,
        out=folder,
        draft=models / "draft" if plan.decision.policy.draft is not None else None,
        throttle={"disk": setting.gigabytes_per_s * GB} if setting.way == "disk" else {},
        emulate_gpu=setting.way == "link",
        threads=compute_threads(setting.way),
    )
    return run(plan, options)


def run_configuration(configuration: Configuration, measured: Machine, models: Path, folder: Path) -> None:
    """Plan, run and compare; `folder`/validation.json comes last."""
    c = configuration
    case = question(c, measured, models, c.requests, speculate=c.gamma > 0)
    plan = plan_for(c, case, strategy=c.strategy, gamma=c.gamma, batch=c.batch, refill=c.refill)
    execute(plan, c, models, folder)
    ran, timelines = read_run(folder)
    found = compare(plan, ran, timelines["predicted"], timelines["measured"])
    write_whole(folder / DONE, json.dumps(comparison_dict(plan, found), indent=2) + "\n")
