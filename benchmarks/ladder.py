"""From SpecOffload as published to our plan, one decision at a time: what each is worth on the way.

    python -m benchmarks.ladder [--plot docs/ladder.png] [--format csv]

Both are judged on the machine that the calibration finds behind SpecOffload's runs: what its copies reached of the
link, its products of the GPU and the CPU, and the acceptance of its draft, for each model and workload (`specsim
published`). The first rung is SpecOffload itself, counting useful tokens only. The second makes the same decisions,
lowered and run as ours are: nothing is padded, copies are hidden behind prefill, no cache is shifted, no sequence goes
on after its end. Every further rung leaves one more decision to the planner; the last is our plan. What a rung gains
depends on those before it. Every number is predicted.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from specsim import api
from specsim.acceptance import Acceptance
from specsim.cli.tables import emit
from specsim.planner.ablation import best_within
from specsim.planner.candidates import Fixed
from specsim.published.cells import DRAFTS, FITTED_TOKENS, UNKNOWN_POLICIES, Cell, cells, policy
from specsim.published.parameters import predict
from specsim.published.store import stored
from specsim.report.bars import Label, bars
from specsim.report.style import save
from specsim.systems.specoffload import BATCHES

#: decisions in the order in which they are left to the planner, and the fields that fix them
FREED: Final[dict[str, tuple[str, ...]]] = {
    "same decisions, run as ours": (),
    "+ draft's KV": ("draft_kv", "draft_batch"),
    "+ attention, home of KV": ("attention", "kv"),
    "+ placement": ("ffn", "placement"),
    "+ schedule": ("strategy",),
    "+ gamma": ("gamma",),
    "+ prefill sweeps": ("prefill_batch",),
    "+ batch: our plan": ("batch",),
}
HEADERS = ("model", "machine", "workload", "reported", "SpecOffload, useful", *FREED, "ours / SpecOffload", "plan")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Useful tokens/s of SpecOffload as published and of each rung, and our plan in words."""

    cell: Cell
    useful: float
    rates: tuple[float, ...]
    plan: str


def ladder(cell: Cell) -> Ladder:
    """All rungs of one published run."""
    values = stored().values
    published = predict(cell, values)
    rate = values[f"acceptance/{cell.model}/{cell.workload}"]
    question = replace(
        api.case(machine=published.case.machine, target=cell.model, workload=cell.workload),
        draft=api.model(DRAFTS[cell.model]),
        acceptance=Acceptance.constant(rate, "fitted", "to published throughput"),
    )
    work = replace(question.workload, output_tokens=FITTED_TOKENS, requests=round(BATCHES * policy(cell).batch))
    question = replace(question, workload=work)
    found = [best_within(question, Fixed(**fix), None) for fix in rungs(cell)]
    rates = tuple(one.tokens_per_second if one is not None else 0.0 for one in found)
    return Ladder(cell, published.useful_per_s, rates, found[-1].candidate.label if found[-1] is not None else "none")


def rungs(cell: Cell) -> list[dict[str, Any]]:
    """What is still fixed on each rung: all that SpecOffload decides, down to nothing."""
    decided = policy(cell)
    fix: dict[str, Any] = {
        "strategy": "interleaved",
        "gamma": decided.gamma,
        "batch": round(decided.batch),
        "prefill_batch": round(decided.prefill_batch),
        "attention": "cpu+projections",
        "kv": "ram",
        "ffn": "gpu",
        "placement": "layers",
        "draft_kv": "none",
        "draft_batch": round(decided.draft_batch),
    }
    left = []
    for freed in FREED.values():
        fix = {name: value for name, value in fix.items() if name not in freed}
        left.append(fix)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    parser.add_argument("--plot", help="draw the rungs as bars: .png, .svg or .pdf")
    options = parser.parse_args()
    asked = [cell for cell in cells() if cell.system == "specoffload" and cell.model != UNKNOWN_POLICIES]
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(ladder, asked))
    if options.plot:
        names = ["SpecOffload, useful tokens", *FREED]
        labels = [Label("" if i else "published", name) for i, name in enumerate(names)]
        panels = {f"{one.cell.environment}\n{one.cell.workload}": (one.useful, *one.rates) for one in found}
        figure = bars(
            labels,
            panels,
            title="From SpecOffload as published to our plan",
            subtitle="Useful tokens/s of Mixtral 8x7B on env1 and of 8x22B on env2, on the machine that the "
            "calibration finds behind the published runs. Predicted.",
            write=lambda rate: f"{rate:.3g}",
            narrow=True,
        )
        save(figure, options.plot)
    table: list[tuple[str | float, ...]] = [
        (
            one.cell.model,
            one.cell.environment,
            one.cell.workload,
            one.cell.tokens_per_s,
            one.useful,
            *one.rates,
            one.rates[-1] / one.useful,
            one.plan,
        )
        for one in found
    ]
    emit(HEADERS, table, options.format)


if __name__ == "__main__":
    main()
