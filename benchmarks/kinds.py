"""Seconds by kind of task, predicted and measured, in runs that no fit has seen, for one machine profile and another.

    python -m benchmarks.kinds --machine OLD.yaml --machine NEW.yaml --target DIR --draft DIR --prompts FILE \
        --ram 1.2GiB [--throttle 25MB/s --prompt-tokens 91] [--only 64,2] -o RUNS.jsonl
    python -m benchmarks.kinds RUNS.jsonl ...

A configuration is requests, all in one batch, and gamma; the rest is planned for the last machine named. Each is run
once. What was done is then priced for every machine: the rounds as they turned out, so that what is left is the cost
model's error. The second form prints, for every kind and machine, the median over the runs of
|predicted / measured - 1|; with --each the runs one by one, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import specsim
from executor.options import RunOptions
from executor.replay import replay
from executor.run import run
from specsim import machines
from specsim.cli.tables import Cell, render
from specsim.schedule.graph import parse as parse_name
from specsim.timeline import Timeline
from specsim.timeline.trace import read_trace
from specsim.units import parse

#: requests and gamma
CONFIGURATIONS: Final = ((1, 4), (4, 3), (16, 0), (16, 1), (16, 5), (32, 2), (64, 0), (64, 2))
OUTPUT_TOKENS, ACCEPTANCE = 32, 0.7
#: kinds that take less than this share of a run's busy time say nothing about it
_SHARE: Final = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds", description="Predicted and measured, by kind.")
    parser.add_argument("runs", nargs="*", type=Path, help="files of finished runs, to be summed up")
    parser.add_argument("--machine", action="append", default=[], help="a machine profile; the last is planned for")
    parser.add_argument("--target", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--ram", default="1.2GiB")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="the longest prompt")
    parser.add_argument("--throttle", help="hold the disk to this: 25MB/s")
    parser.add_argument("--only", help="one configuration: REQUESTS,GAMMA")
    parser.add_argument("--each", action="store_true", help="print the runs one by one, too")
    parser.add_argument("-o", "--output", type=Path, help="append the runs to this file")
    options = parser.parse_args()
    if options.machine:
        wanted = [tuple(map(int, options.only.split(",")))] if options.only else CONFIGURATIONS
        for requests, gamma in wanted:
            line = json.dumps(_run(options, requests, gamma))
            with options.output.open("a") as file:
                file.write(line + "\n")
    else:
        _print([json.loads(line) for path in options.runs for line in path.read_text().splitlines()], options.each)


def _run(options: argparse.Namespace, requests: int, gamma: int) -> dict[str, Any]:
    """Plan, run and price one configuration."""
    rate = parse(options.throttle, "bytes/s") if options.throttle else None
    ram = parse(options.ram, "bytes")
    made = [machines.assemble(machine=name, ram=ram, disk_bytes_per_s=rate) for name in options.machine]
    plan = specsim.plan(
        machine=options.machine[-1],
        ram=ram,
        disk_bytes_per_s=rate,
        target=str(options.target),
        draft=str(options.draft),
        acceptance=ACCEPTANCE,
        requests=requests,
        prompt_tokens=options.prompt_tokens,
        output_tokens=OUTPUT_TOKENS,
        fix={"strategy": "serial", "gamma": gamma, "batch": requests},
    )
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            plan,
            RunOptions(
                target=options.target,
                draft=options.draft,
                prompts=options.prompts,
                out=Path(folder) / "out",
                limit=requests,
                throttle={"disk": rate} if rate else {},
            ),
        )
        measured = read_trace(Path(folder) / "out" / "trace.json")["measured"]
    cases = [replace(plan.case, machine=machine) for machine in made]
    priced = [replay(replace(plan, case=case), done.waves, in_turn=True).timeline for case in cases]
    return {
        "pair": options.target.parent.name,
        "requests": requests,
        "gamma": gamma,
        "measured": _kinds(measured),
        "predicted": [_kinds(timeline) for timeline in priced],
    }


def _kinds(timeline: Timeline) -> dict[str, float]:
    """Seconds by kind, and how long everything took. A task with nothing to do is none."""
    alike: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for span in timeline.spans:
        if span.seconds > 0:
            alike[span.kind, span.name.partition("/")[0], parse_name(span.name).op].append(span.seconds)
    seconds: dict[str, float] = defaultdict(float)
    for (kind, _, _), of in alike.items():
        seconds[kind] += len(of) * statistics.median(of)
    return {**seconds, "job": timeline.makespan}


def _print(runs: list[dict[str, Any]], each: bool) -> None:
    names = [f"machine {number}" for number, _ in enumerate(runs[0]["predicted"], 1)]
    errors: dict[str, list[list[float]]] = defaultdict(list)
    rows: list[list[Cell]] = []
    for found in runs:
        busy = sum(found["measured"].values()) - found["measured"]["job"]
        for kind, seconds in found["measured"].items():
            if seconds > _SHARE * busy:
                ratios = [predicted[kind] / seconds for predicted in found["predicted"]]
                errors[kind].append([abs(ratio - 1) for ratio in ratios])
                run_of = [found["pair"], found["requests"], found["gamma"]]
                rows.append([*run_of, kind, f"{seconds:.2f}", *(f"{ratio:.2f}" for ratio in ratios)])
    aligned = "r" * len(names)
    if each:
        print(render(["pair", "requests", "gamma", "kind", "seconds", *names], rows, f"lrrlr{aligned}"), end="\n\n")
    medians = {kind: [statistics.median(known) for known in zip(*of, strict=True)] for kind, of in errors.items()}
    summary: list[list[Cell]] = [
        [kind, len(errors[kind]), *(f"{error:.0%}" for error in of)] for kind, of in medians.items()
    ]
    print(render(["kind", "runs", *names], summary, f"lr{aligned}"))


if __name__ == "__main__":
    main()
