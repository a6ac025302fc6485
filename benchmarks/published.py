"""SpecOffload's published policies under our model, beside what was published and beside our own best plans.

    python -m benchmarks.published [--format csv]

Nothing is fitted. The policy is lowered by our `interleaved` schedule with attention and its projections on the CPU,
all of the FFN on the GPU, and a draft that re-prefills its context every round; placement is ours. We count useful
tokens; the published figures count what rows generate after their own end as well.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass, replace

from specsim import api, profiles
from specsim.cli.tables import emit
from specsim.planfile import Plan

ENVIRONMENT = {"mixtral-8x7b": "env1", "mixtral-8x22b": "env2"}
HEADERS = (
    "model", "machine", "workload", "requests", "published", "same policy", "our plan", "ours / same", "bound", "plan",
    "same: prefill s", "same: slot s", "ours: prefill s", "ours: slot s", "same: bottleneck",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One published policy: tokens/s as published, and the plans for the same requests."""

    model: str
    workload: str
    published: float
    same: Plan
    ours: Plan


def rows() -> list[Row]:
    """Every policy of system `specoffload`."""
    folder = profiles.root() / "published"
    with (folder / "published_throughput.csv").open(encoding="utf-8") as file:
        published = {
            (r["model"], r["workload"]): float(r["tokens_per_s"])
            for r in csv.DictReader(file)
            if r["system"] == "specoffload"
        }
    with (folder / "published_policies.csv").open(encoding="utf-8") as file:
        policies = [r for r in csv.DictReader(file) if r["system"] == "specoffload"]
    return [_row(policy, published[policy["model"], policy["workload"]]) for policy in policies]


def _row(policy: dict[str, str], published: float) -> Row:
    batch = int(policy["batch"])
    workload = replace(profiles.workload(policy["workload"]), requests=2 * batch)
    question = api.case(
        machine=ENVIRONMENT[policy["model"]], target=policy["model"], draft="mistral-7b", workload=workload
    )
    fix = {
        "strategy": "interleaved",
        "gamma": int(policy["draft_tokens"]),
        "batch": batch,
        "prefill_batch": int(policy["prefill_batch"]),
        "draft_batch": int(policy["draft_batch"]),
        "draft_kv": "none",
        "attention": "cpu+projections",
        "ffn": "gpu",
    }
    return Row(policy["model"], workload.name, published, api.plan(question, fix=fix), api.plan(question))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    fmt = parser.parse_args().format
    table = []
    for r in rows():
        same, ours = r.same.predicted, r.ours.predicted
        policy = r.ours.decision.policy
        kind = f"{r.ours.decision.strategy}, gamma {policy.gamma}, {policy.batches} x {policy.batch}"
        table.append(
            (
                r.model,
                r.same.case.machine.name,
                r.workload,
                r.same.case.workload.requests,
                r.published,
                same.tokens_per_second,
                ours.tokens_per_second,
                ours.tokens_per_second / same.tokens_per_second,
                ours.bound_tokens_per_second,
                kind,
                same.prefill_s,
                same.slot_s,
                ours.prefill_s,
                ours.slot_s,
                same.bottleneck,
            )
        )
    emit(HEADERS, table, fmt)


if __name__ == "__main__":
    main()
