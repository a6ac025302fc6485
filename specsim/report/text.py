"""A plan and its explanation as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from specsim.answer import Plan
from specsim.planner.explain import Explanation
from specsim.report import sections
from specsim.report.sections import duration, rate

#: assumptions printed with a plan; the file has them all
SHOWN: int = 6


def plan_text(plan: Plan) -> str:
    """Answer, reason, decisions, memory, runners-up, what to buy next, assumptions."""
    parts = [_answer(plan), _decisions(plan), _memory(plan), _runners_up(plan), _upgrades(plan), _assumptions(plan)]
    return "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)


def explanation_text(explanation: Explanation) -> str:
    lines = [explanation.sentence, ""]
    lines += table(
        ("change (re-planned)", "tokens/s", "gain"),
        [(s.change, f"{rate(s.tokens_per_second)}", f"{s.gain:+.1%}") for s in explanation.sensitivities],
    )
    lines += ["", f"without speculation: {rate(explanation.plain_tokens_per_second)} tokens/s"]
    if explanation.break_even is not None:
        lines.append(f"speculation starts to pay at an acceptance of {explanation.break_even:.2f}")
    return "\n".join(lines)


def _answer(plan: Plan) -> Iterator[str]:
    predicted = plan.predicted
    yield sections.question(plan)
    reached, bound = predicted.tokens_per_second, predicted.bound_tokens_per_second
    yield f"  {rate(reached)} useful tokens/s; the job takes {duration(predicted.makespan_s)}"
    yield f"  roofline bound {rate(bound)} tokens/s, of which this reaches {reached / bound:.0%}"
    if (band := sections.band(plan)) is not None:
        yield f"  {band}"
    yield f"  {sections.choice(plan)}"
    yield f"  why: {predicted.bottleneck}"


def _decisions(plan: Plan) -> Iterator[str]:
    yield "What runs where"
    yield from (f"  {what:<10} {where}" for what, where in sections.decisions(plan))


def _memory(plan: Plan) -> Iterator[str]:
    yield "Peak memory"
    yield from (f"  {line}" for line in table(sections.MEMORY_HEADERS, list(sections.memory_rows(plan))))
    yield f"  {sections.memory_limit(plan)}"


def _runners_up(plan: Plan) -> Iterator[str]:
    if rows := sections.lost(plan):
        yield "What lost, and why"
        yield from (f"  {line}" for line in table(sections.LOST_HEADERS, rows))


def _upgrades(plan: Plan) -> Iterator[str]:
    if gains := sections.upgrades(plan):
        yield "What to buy next: " + ", ".join(
            f"{u.factor:g}x {u.resource} gives at least {u.gain:+.0%}" for u in gains[:3]
        )


def _assumptions(plan: Plan) -> Iterator[str]:
    lines = plan.provenance.assumptions
    if lines:
        yield "Taken on trust"
        yield from (f"  {line}" for line in lines[:SHOWN])
        if len(lines) > SHOWN:
            yield f"  and {len(lines) - SHOWN} more, in the plan file"


def table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Left-aligned columns, two spaces apart."""
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    lines = (headers, *rows)
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]
