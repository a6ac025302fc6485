"""Ablations and comparisons as pictures of bars. Imports matplotlib, so only who asks for a picture imports this."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from specsim.planner.ablation import MINUS, Ablation
from specsim.planner.compare import Comparison
from specsim.planner.reason import sentence
from specsim.report.bars import Label, bars
from specsim.report.style import save

__all__ = ["ablations", "comparison", "save"]


def ablations(found: Sequence[Ablation]) -> Figure:
    """Share of the full plan's tokens/s that is kept without each decision, a panel per case."""
    kept = [minus for minus in MINUS if any(row.minus == minus for one in found for row in one.rows)]
    panels = {}
    for one in found:
        share = {row.minus: row.share for row in one.rows}
        case, rate = one.case, one.tokens_per_second
        machine = case.machine.name.replace(" in ", "\nin ")
        work = f"{case.workload.requests} x {case.workload.name}"
        panels[f"{machine}\n{case.target.name}, {work}\nfull plan: {rate:.3g} tokens/s"] = [
            share.get(minus) for minus in kept
        ]
    return bars(
        [Label(minus.decision, f"{', '.join(str(value) for _, value in minus.fix)} ({minus.like})") for minus in kept],
        panels,
        title="What each decision of the planner is worth",
        subtitle="Share of the full plan's useful tokens/s that is left when one decision is fixed (as who fixes it), "
        "and all others are made anew. Predicted.",
        write=lambda share: f"{share:.0%}" if share else "does not fit",
        whole=1.0,
    )


def comparison(found: Comparison) -> Figure:
    """Useful tokens/s and seconds from token to token of every way, the fastest first."""
    case, entries = found.case, found.entries
    camps = {True: "specsim", False: "published"}
    return bars(
        [Label(camps[e.ours], f"{e.plan if e.ours else e.name}") for e in entries],
        {
            "useful tokens/s": [e.tokens_per_second for e in entries],
            "seconds per token of a sequence": [e.latency_s for e in entries],
        },
        title=f"{case.target.name} on {case.machine.name}, {case.workload.requests} x {case.workload.name}",
        subtitle=f"Predicted. {sentence(found)}",
        write=lambda value: f"{value:.3g}",
    )
