"""Plans and runs in a setting, and a whole configuration: plan, run, compare.

What a pair accepts is measured beforehand, as a user would, on prompts that no configuration has.
"""

from __future__ import annotations

import datetime
import json
import shutil
import zlib
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
from specsim.validation.pair import pair_profile
from specsim.validation.record import read_run
from specsim.validation.throughput import compare

PLAN: Final = "plan.yaml"
DONE: Final = "validation.json"
PROMPTS: Final = "prompts.jsonl"
ACCEPTANCE: Final = "acceptance.yaml"
#: of the run that measures a pair's acceptance
MEASURED_REQUESTS, MEASURED_BATCH, MEASURED_GAMMA, MEASURED_SEED = 128, 64, 6, 1


def question(setting: Setting, measured: Machine, models: Path, requests: int, *, speculate: bool = True) -> Case:
    """What is asked in a setting of the machine that was measured; `models` is the folder of the shape's pair, whose
    acceptance is measured if that was not done yet."""
    machine = machine_of(setting, measured, float(api.model(models / "target").weight_bytes))
    acceptance = str(_acceptance(setting.shape, measured, models)) if speculate else None
    return _case(machine, models, requests, models / "draft" if speculate else None, acceptance)


def plan_for(setting: Setting, case: Case, **fix: Any) -> Plan:
    """The best plan with what is fixed. Raises InfeasibleError where the setting's memory is too small."""
    if setting.way == "link":  # an emulated GPU is the CPU: it cannot be both
        fix |= {"attention": "gpu", "ffn": "gpu"} | ({"draft_kv": "vram"} if case.draft is not None else {})
    return api.plan(case, fix=fix)


def execute(plan: Plan, setting: Setting, models: Path, folder: Path, seed: int) -> RunResult:
    """Run a plan in the setting that it was made for, on the prompts of a `seed`. What an interrupted run left in
    `folder` is removed."""
    return _run(
        plan,
        setting.shape,
        models,
        folder,
        seed,
        throttle={"disk": setting.gigabytes_per_s * GB} if setting.way == "disk" else {},
        emulate_gpu=setting.way == "link",
        threads=compute_threads(setting.way),
    )


def run_configuration(configuration: Configuration, measured: Machine, models: Path, folder: Path) -> None:
    """Plan, run and compare; `folder`/validation.json comes last. Each configuration has prompts of its own, so that an
    unlucky one counts once."""
    c = configuration
    case = question(c, measured, models, c.requests, speculate=c.gamma > 0)
    plan = plan_for(c, case, strategy=c.strategy, gamma=c.gamma, batch=c.batch, refill=c.refill)
    execute(plan, c, models, folder, MEASURED_SEED + 1 + zlib.crc32(c.name.encode()))
    ran, timelines = read_run(folder)
    found = compare(plan, ran, timelines["predicted"], timelines["measured"])
    write_whole(folder / DONE, json.dumps(comparison_dict(plan, found), indent=2) + "\n")


def _acceptance(shape: str, measured: Machine, models: Path) -> Path:
    """The profile of a shape's pair: what it accepts where nothing is short, and how much requests differ."""
    profile, folder = models / ACCEPTANCE, models / "measured"
    if not profile.exists():
        case = _case(measured, models, MEASURED_REQUESTS, models / "draft", None)
        plan = api.plan(case, fix={"strategy": "serial", "gamma": MEASURED_GAMMA, "batch": MEASURED_BATCH})
        _run(plan, shape, models, folder, MEASURED_SEED, threads=compute_threads("disk"))
        ran, _ = read_run(folder)
        found = pair_profile(plan, ran, profile.stem, datetime.date.today())
        write_whole(profile, planfile.dump_yaml(found))
        shutil.rmtree(folder)
    return profile


def _case(machine: Machine, models: Path, requests: int, draft: Path | None, acceptance: str | None) -> Case:
    return api.case(
        machine=machine,
        target=models / "target",
        draft=draft,
        acceptance=acceptance,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        requests=requests,
    )


def _run(plan: Plan, shape: str, models: Path, folder: Path, seed: int, **options: Any) -> RunResult:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    planfile.write_plan(plan, folder / PLAN)
    write_prompts(SHAPES[shape], plan.case.workload.requests, folder / PROMPTS, seed)
    draft = models / "draft" if plan.decision.policy.draft is not None else None
    return run(plan, RunOptions(models / "target", folder / PROMPTS, folder, draft=draft, **options))
