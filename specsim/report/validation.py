"""A comparison of prediction and measurement: lines and rows for a person, plain values for a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from specsim.answer import Plan
from specsim.units import show
from specsim.validation.interval import LEVEL
from specsim.validation.terms import KindError
from specsim.validation.throughput import Comparison
from specsim.validation.verdict import sentence, terms

Row = tuple[str, str, str, str, str, str]

#: of `rows`; the first is a name, the others are numbers
HEADERS: Final = ("what", "tasks", "predicted", "measured", "ratio", "error")


def comparison_dict(plan: Plan, found: Comparison) -> dict[str, Any]:
    """The same as plain values. Errors and shares are parts of the planned time: 0.1 makes a job 10 % longer."""
    return {
        "target": plan.case.target.name,
        "machine": plan.case.machine.name,
        "strategy": plan.decision.strategy,
        "gamma": plan.decision.policy.gamma,
        "tokens_per_second": {
            "planned": found.planned,
            "with_measured_acceptance": found.reacted,
            "rounds_as_they_were": found.replayed,
            "measured": found.measured,
        },
        "interval": asdict(found.interval) | {"level": LEVEL},
        "error": found.error,
        "acceptance": {"assumed": found.assumed_acceptance, "measured": found.measured_acceptance},
        "seconds": {"predicted": found.machine.predicted_s, "measured": found.machine.measured_s},
        "kinds": [asdict(row) | {"share": found.share(row.explains_s)} for row in found.machine.kinds],
        "terms": [asdict(term) for term in terms(found)],
        "sentence": sentence(found),
    }


def head(plan: Plan, found: Comparison) -> Iterator[str]:
    """What was planned, and what was assumed, a line each."""
    case, policy = plan.case, plan.decision.policy
    kind = f"gamma {policy.gamma}" if policy.gamma else "no speculation"
    how = f"{plan.decision.strategy}, {kind}, {policy.batches} x {policy.batch} sequences in flight"
    yield f"{case.target.name} on {case.machine.name}, {case.workload.requests} x {case.workload.name}: {how}"
    if found.measured_acceptance:
        assumed, seen = (_hazards(shares) for shares in (found.assumed_acceptance, found.measured_acceptance))
        yield f"  acceptance by position: {assumed} assumed, {seen} measured"
    low, high = found.interval.low, found.interval.high
    inside = "" if found.measured in found.interval else "not "
    yield f"  {LEVEL:.0%} of the time {low:.4g} to {high:.4g} tokens/s were to be expected, which was {inside}so"
    yield "  error: of the planned time, by how much each row makes the job longer"


def rows(found: Comparison) -> Iterator[Row]:
    """The steps from planned to measured throughput, each with its part of the error; the last row is their sum."""
    if found.measured_acceptance:
        assumed, seen = found.assumed_per_round, found.measured_per_round
        yield _row("accepted per round", None, f"{assumed:.2f}", f"{seen:.2f}", seen / assumed, found.acceptance_share)
    yield _row("requests: luck, length", None, "-", "-", None, found.requests_share)
    groups: dict[str, list[KindError]] = {}
    for row in found.machine.kinds:
        groups.setdefault(row.resource, []).append(row)
    for name, rows in groups.items():
        alone = len(rows) == 1
        if not alone:
            yield _seconds(found, name, rows)
        for row in rows:
            yield _seconds(found, f"{name} {row.kind}" if alone else f"  {row.kind}", [row])
    yield _row("between tasks", None, "-", "-", None, found.share(found.machine.between_s))
    ratio = found.measured / found.planned
    yield _row("useful tokens/s", None, f"{found.planned:.4g}", f"{found.measured:.4g}", ratio, found.error)


def _seconds(found: Comparison, what: str, rows: list[KindError]) -> Row:
    planned, took = sum(row.predicted_s for row in rows), sum(row.measured_s for row in rows)
    share = found.share(sum(row.explains_s for row in rows))
    shown = show(planned, "seconds"), show(took, "seconds")
    return _row(what, sum(row.tasks for row in rows), *shown, took / planned if planned else None, share)


def _row(what: str, tasks: int | None, predicted: str, measured: str, ratio: float | None, share: float) -> Row:
    return what, "-" if tasks is None else str(tasks), predicted, measured, _ratio(ratio), f"{share:+.1%}"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _hazards(hazards: tuple[float, ...]) -> str:
    return " ".join(f"{share:.2f}" for share in hazards)
