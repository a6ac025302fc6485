"""Draft lengths that follow what is measured, beside the plan's own: useful tokens/s of real runs.

    python -m benchmarks.adaptive --machine here.yaml --target DIR --draft DIR --prompts FILE --ram 6.5MiB \
        [--throttle 12MB/s] [--planned 0.8,0.5] [--requests 16] [--repeat 3] [-o RESULTS.json]

For each acceptance `planned`, whatever the true one is, the plan that is best with a model that drafts is run with
`--draft-length fixed` and `adaptive`, in turn, `repeat` times. Greedy tokens have to be the same. Printed are medians,
the acceptance that was found, and how many times as fast adaptive lengths are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

import specsim
from executor.metrics import Metrics
from executor.options import RunOptions
from executor.run import run
from specsim.answer import Plan
from specsim.cli.tables import render
from specsim.errors import InputError
from specsim.units import parse

WAYS: Final = ("fixed", "adaptive")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptive", description="Adaptive draft lengths.")
    parser.add_argument("--machine", required=True, help="a machine profile")
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--ram", required=True, help="that the plan may use")
    parser.add_argument("--throttle", help="hold the disk to this: 12MB/s")
    parser.add_argument("--planned", default="0.8,0.5", help="acceptances to plan with")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=91, help="the longest prompt")
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--gamma", type=int, help="instead of the planner's")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    found = [_compare(options, float(planned)) for planned in options.planned.split(",")]
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=2) + "\n")
    headers = ("planned", "true", "gamma", *(f"{way}, tokens/s" for way in WAYS), "adaptive / fixed")
    rows = [
        (f["planned"], f["true"], f["gamma"], *(f["tokens_per_second"][way] for way in WAYS), f["ratio"]) for f in found
    ]
    print(render(headers, rows))


def _compare(options: argparse.Namespace, planned: float) -> dict[str, Any]:
    """Plan with an acceptance, and run both ways in turn."""
    rate = parse(options.throttle, "bytes/s") if options.throttle else None
    plan = specsim.plan(
        machine=options.machine,
        ram=parse(options.ram, "bytes"),
        disk_bytes_per_s=rate,
        target=str(options.target),
        draft=str(options.draft),
        acceptance=planned,
        requests=options.requests,
        prompt_tokens=options.prompt_tokens,
        output_tokens=options.output_tokens,
        fix=None if options.gamma is None else {"gamma": options.gamma},
    )
    if plan.decision.policy.draft is None:
        what = f"the best plan for an acceptance of {planned:g} does not draft"
        raise InputError(what, where="--planned", hint="plan with a higher one, or give --gamma")
    measured: dict[str, list[Metrics]] = {way: [] for way in WAYS}
    said: dict[str, set[str]] = {way: set() for way in WAYS}
    for _ in range(options.repeat):
        for way in WAYS:
            metrics, outputs = _run(options, plan, rate, way)
            measured[way].append(metrics)
            said[way].add(outputs)
    assert said["fixed"] == said["adaptive"], "greedy tokens differ"
    rates = {way: statistics.median(m.tokens_per_second for m in measured[way]) for way in WAYS}
    fixed = measured["fixed"][0]
    return {
        "planned": planned,
        "true": fixed.acceptance[0],
        "gamma": fixed.gamma,
        "tokens_per_second": rates,
        "ratio": rates["adaptive"] / rates["fixed"],
        "proposed": {way: measured[way][0].proposed for way in WAYS},
        "runs": {way: [m.tokens_per_second for m in measured[way]] for way in WAYS},
    }


def _run(options: argparse.Namespace, plan: Plan, rate: float | None, way: str) -> tuple[Metrics, str]:
    """Metrics, and all outputs by request."""
    with tempfile.TemporaryDirectory() as folder:
        done = run(
            plan,
            RunOptions(
                target=options.target,
                draft=options.draft,
                prompts=options.prompts,
                out=Path(folder) / "out",
                limit=options.requests,
                throttle={"disk": rate} if rate else {},
                draft_length=way,  # type: ignore[arg-type]
            ),
        )
        lines = [json.loads(line) for line in done.outputs.read_text().splitlines()]
    return done.metrics, json.dumps(sorted((line["id"], line["output_ids"]) for line in lines))


if __name__ == "__main__":
    main()
