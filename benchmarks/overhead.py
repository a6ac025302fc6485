"""What the engine adds to a task: lowering it, handing it to its stream, waiting for others, noting when it ran.

    python -m benchmarks.overhead [--plan FILE] [--json]

The schedule of a plan, by default Mixtral 8x7B's for an RTX 4090 (every stream is in use), is lowered for 40 rounds,
and run with actions that do nothing. Printed are the microseconds per task of lowering and of running, medians of
five, and the share of the plan's slot that running would take if nothing of it were hidden.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import specsim
from executor.engine import Engine
from specsim.answer import Plan
from specsim.planfile import read_plan
from specsim.schedule.graph import Task, parse
from specsim.schedule.lower import append_round, builder
from specsim.schedule.round import RoundShape, RoundState

ROUNDS, REPETITIONS = 40, 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description="Overhead of the engine.")
    parser.add_argument("--plan", type=Path, help="a plan file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    plan = read_plan(options.plan) if options.plan else _default()
    lowering, running = [], []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        tasks = _lower(plan)
        lowered = time.perf_counter()
        with Engine() as engine:
            engine.submit(tasks, [_nothing] * len(tasks))
            engine.drain()
            ended = time.perf_counter()
        lowering.append((lowered - began) / len(tasks))
        running.append((ended - lowered) / len(tasks))
    result: dict[str, Any] = {
        "system": f"{platform.python_implementation()} {platform.python_version()}",
        "strategy": plan.decision.strategy,
        "tasks_per_round": len(tasks) / ROUNDS,
        "streams": len({task.stream for task in tasks}),
        "lowering_us": statistics.median(lowering) * 1e6,
        "running_us": statistics.median(running) * 1e6,
        "slot_s": plan.predicted.slot_s,
    }
    result["share_of_slot"] = result["running_us"] * 1e-6 * result["tasks_per_round"] / plan.predicted.slot_s
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['tasks_per_round']:.0f} tasks a round on {result['streams']} streams, {result['system']}")
    lowered, ran = result["lowering_us"], result["running_us"]
    print(f"lowering {lowered:.1f} us a task, while another round runs; running {ran:.1f} us")
    print(f"that is {result['share_of_slot']:.2%} of the plan's slot of {result['slot_s']:.2f} s")


def _default() -> Plan:
    return specsim.plan(
        gpu="rtx4090", target="mixtral-8x7b", draft="mistral-7b", workload="humaneval", fix={"gamma": 4}
    )


def _lower(plan: Plan) -> list[Task]:
    """Rounds as a job lowers them, names taken apart and all."""
    b, state = builder(plan.decision), RoundState({}, {})
    rows = float(plan.decision.policy.in_flight)
    for number in range(ROUNDS):
        append_round(b, plan.case, plan.decision, RoundShape(rows, 200.0), number, state)
    for task in b.tasks:
        parse(task.name)
    return b.tasks


def _nothing() -> int:
    return 0


if __name__ == "__main__":
    main()
