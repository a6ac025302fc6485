"""Whether a machine that is measured twice in a row is the same machine: what is predicted with each profile.

    python -m benchmarks.profiles [--work DIR] [--quick] [--json]

Measures the machine twice (`specsim profile`), plans six settings with the first profile, and predicts the same plans
with the second: the goal is a difference of less than 5 % in each. In four of them the disk is held to less than it
gives, so that they compare processors; in two its own speed counts. What a profile says of noise is printed with it: on
a machine that other programs use, or whose clock changes, profiles differ because the machine does.

The pairs of the settings are made once, and stay in the work directory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from executor.validation.machines import machine_of
from executor.validation.pairs import make_models
from specsim import api, machines
from specsim.hardware import Machine
from specsim.report.text import table
from specsim.simulator.job import simulate_job
from specsim.validation.configurations import OUTPUT_TOKENS, PROMPT_TOKENS, SHAPES, Setting

#: with the draft length and the sequences of their plans
SETTINGS: Final = (
    (Setting("few", "disk", 0.5, 0.7), 0, 8),
    (Setting("few", "disk", 2, 0.85), 2, 32),
    (Setting("many", "disk", 1, 0.85), 1, 64),
    (Setting("many", "disk", 8, 0.55), 3, 16),
    (Setting("dense", "disk", 1, 0.85), 4, 16),
    (Setting("dense", "disk", 8, 0.7), 0, 32),
)
ACCEPTANCE: Final = 0.7
GOAL: Final = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description="One machine, measured twice.")
    parser.add_argument("--work", type=Path, default=Path("out/profiles"), help="where everything is kept")
    parser.add_argument("--quick", action="store_true", help="measure for a minute only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    for shape in dict.fromkeys(setting.shape for setting, _, _ in SETTINGS):
        make_models(SHAPES[shape], options.work / "pairs" / shape, lambda _: None)
    measured = [_profile(options.work, number, quick=options.quick) for number in (1, 2)]
    cases = [_predicted(*asked, [machine for machine, _ in measured], options.work) for asked in SETTINGS]
    found = {"cases": cases, "noise": [noise for _, noise in measured], "goal": GOAL}
    if options.json:
        print(json.dumps(found, indent=2))
        return
    rows = [(case["setting"], *(f"{speed:.2f}" for speed in case["speeds"]), f"{case['off']:+.1%}") for case in cases]
    print("\n".join(table(("setting", "first", "second", "difference"), rows)))
    for number, (_, noise) in enumerate(measured, start=1):
        print(f"profile {number}: {'; '.join(noise) or 'not noisy'}")
    most = max(abs(case["off"]) for case in cases)
    print(f"at most {most:.1%} apart (goal {GOAL:.0%}: {'met' if most < GOAL else 'missed'})")


def _profile(work: Path, number: int, *, quick: bool) -> tuple[Machine, list[str]]:
    """This machine as it is measured now, and what is said of noise."""
    path, models = work / f"machine-{number}.yaml", work / "pairs" / SETTINGS[0][0].shape / "target"
    print(f"measuring, {number} of 2", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "specsim", "profile", *(["--quick"] if quick else [])]
    command += ["--disk-path", str(models), "-o", str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    told = ("noisy: ", "profile: a small pair")
    noise = [line.removeprefix("noisy: ") for line in done.stdout.splitlines() if line.startswith(told)]
    return machines.assemble(machine=str(path)), noise


def _predicted(setting: Setting, gamma: int, batch: int, measured: list[Machine], work: Path) -> dict[str, Any]:
    """One plan on each of the machines."""
    models = work / "pairs" / setting.shape
    weights = float(api.model(models / "target").weight_bytes)
    cases = [
        api.case(
            machine=machine_of(setting, machine, weights),
            target=models / "target",
            draft=models / "draft" if gamma else None,
            acceptance=ACCEPTANCE if gamma else None,
            prompt_tokens=PROMPT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
            requests=batch,
        )
        for machine in measured
    ]
    plan = api.plan(cases[0], fix={"strategy": "serial", "gamma": gamma, "batch": batch})
    speeds = [simulate_job(case, plan.decision).tokens_per_second for case in cases]
    name = f"{setting.shape}-disk{setting.gigabytes_per_s:g}-{setting.memory:.0%}-g{gamma}-b{batch}"
    return {"setting": name, "speeds": speeds, "off": speeds[1] / speeds[0] - 1}


if __name__ == "__main__":
    main()
