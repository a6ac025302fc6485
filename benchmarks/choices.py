"""Whether the plan that is chosen is the fastest: it and its alternatives, run.

    python -m benchmarks.choices [--work DIR] [--repeat 1] [--json]

Six settings of slow disks and emulated links, with three small models, few and many requests. In each, the planner
chooses freely. The alternatives are the best plans with one decision taken from it: the other strategies, no
speculation, other draft lengths, smaller batches, another ring. All of them run in turn, `--repeat` times, each time on
other prompts, as the slowest of a few requests decides how long a job takes; who is 20 % behind by then runs no more.
Of the others all that they ran counts. The goal: the chosen plan is within 5 % of the fastest in at least five of six.

Models, the machine's measurement and what has run stay in the work directory: an interrupted benchmark goes on there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor.validation.machines import measured_machine
from executor.validation.pairs import make_models
from executor.validation.runs import execute, plan_for, question
from specsim.answer import Plan
from specsim.case import Case
from specsim.errors import InfeasibleError
from specsim.report.text import table
from specsim.validation.configurations import SHAPES, Setting

SETTINGS = (
    (Setting("few", "disk", 0.5, 0.7), 16),
    (Setting("many", "disk", 1, 0.85), 32),
    (Setting("dense", "disk", 0.25, 0.85), 8),
    (Setting("few", "link", 1, 0.55), 32),
    (Setting("many", "link", 4, 0.7), 16),
    (Setting("dense", "link", 2, 0.85), 24),
)
STRATEGIES = ("serial", "merged", "interleaved")
GAMMAS = (0, 1, 2, 4, 6)
RINGS = (2, 5)
GOAL, NEAR, FAR = 5, 0.05, 0.2
#: of the first prompts that all plans run; those that the acceptance is measured on are others
SEED = 2


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that could be taken, and what it was told to do otherwise."""

    name: str
    plan: Plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choices", description="The chosen plan, raced.")
    parser.add_argument("--work", type=Path, default=Path("out/choices"), help="where everything is kept")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = [_race(setting, requests, options.work, options.repeat) for setting, requests in SETTINGS]
    good = sum(case["ratio"] >= 1 - NEAR for case in found)
    if options.json:
        print(json.dumps({"within": NEAR, "good": good, "cases": found}, indent=2))
        return
    rows = []
    for case in found:
        speeds = (f"{case['speed']:.1f}", case["best"], f"{case['best_speed']:.1f}", f"{case['ratio']:.3f}")
        rows.append((case["setting"], case["chosen"], *speeds, f"{case['rank']} of {case['plans']}"))
    print("\n".join(table(("setting", "chosen", "tokens/s", "fastest", "tokens/s", "ratio", "rank"), rows)))
    verdict = "met" if good >= GOAL else "missed"
    print(f"within {NEAR:.0%} of the fastest in {good} of {len(found)} (goal {GOAL}: {verdict})")


def _race(setting: Setting, requests: int, work: Path, repeat: int) -> dict[str, Any]:
    """Plan, run whatever has not run yet, and sum up."""
    name = f"{setting.shape}-{setting.way}{setting.gigabytes_per_s:g}-{setting.memory * 100:.0f}-{requests}"
    models, results = work / "pairs" / setting.shape, work / f"{name}.json"
    speeds: dict[str, list[float]] = json.loads(results.read_text()) if results.exists() else {}
    make_models(SHAPES[setting.shape], models, lambda _: None)
    machine = measured_machine(setting.way, models / "target", work / f"machine-{setting.way}.yaml")
    plans = list(_alternatives(setting, question(setting, machine, models, requests)))
    for turn in range(repeat):
        reached = {one.name: runs for one in plans if len(runs := speeds.setdefault(one.name, [])) >= turn}
        until = {name: statistics.harmonic_mean(runs[:turn]) for name, runs in reached.items()} if turn else {}
        fastest = max(until.values(), default=0.0)
        for number, one in enumerate(plans, start=1):
            behind = until.get(one.name, 0.0) < (1 - FAR) * fastest and one is not plans[0]
            if len(runs := speeds[one.name]) == turn and not behind:
                print(f"{name}, {number} of {len(plans)}: {one.name}", file=sys.stderr, flush=True)
                runs.append(execute(one.plan, setting, models, work / "run", SEED + turn).metrics.tokens_per_second)
                results.write_text(json.dumps(speeds, indent=2) + "\n", encoding="utf-8")
    measured = {one.name: statistics.harmonic_mean(speeds[one.name]) for one in plans}
    ranked = sorted((one for one in measured if len(speeds[one]) == repeat), key=lambda one: -measured[one])
    return {
        "setting": name,
        "chosen": plans[0].name,
        "speed": measured[plans[0].name],
        "best": ranked[0],
        "best_speed": measured[ranked[0]],
        "ratio": measured[plans[0].name] / measured[ranked[0]],
        "rank": 1 + ranked.index(plans[0].name),
        "plans": len(plans),
        "predicted": {one.name: one.plan.predicted.tokens_per_second for one in plans},
        "measured": measured,
        "runs": {one.name: speeds[one.name] for one in plans},
    }


def _alternatives(setting: Setting, case: Case) -> Iterator[Alternative]:
    """The chosen plan, then every other that is really another."""
    chosen = plan_for(setting, case)
    policy = chosen.decision.policy
    taken: dict[str, Any] = {"strategy": chosen.decision.strategy, "gamma": policy.gamma, "batch": policy.batch}
    yield Alternative(_name(chosen), chosen)
    fixes: list[dict[str, Any]] = [{"strategy": name} for name in STRATEGIES if name != taken["strategy"]]
    fixes += [{"strategy": taken["strategy"], "gamma": gamma} for gamma in GAMMAS if gamma != taken["gamma"]]
    fixes += [taken | {"batch": policy.batch // part} for part in (2, 4) if policy.batch >= part]
    fixes += [taken | {"ring_slots": slots} for slots in RINGS if slots != policy.ring_slots]
    seen = {_name(chosen)}
    for fix in fixes:
        try:
            plan = plan_for(setting, case, **fix)
        except InfeasibleError:
            continue
        if _name(plan) not in seen:
            seen.add(_name(plan))
            yield Alternative(_name(plan), plan)


def _name(plan: Plan) -> str:
    policy = plan.decision.policy
    kind = f"gamma {policy.gamma}" if policy.gamma else "plain"
    return f"{plan.decision.strategy}, {kind}, {policy.batches} x {policy.batch}, ring {policy.ring_slots}"


if __name__ == "__main__":
    main()
