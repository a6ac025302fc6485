"""A plan and its explanation as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from specsim.answer import Plan
from specsim.decision import SLOTS, Decision, homes_of
from specsim.memory import PHASES, peak_items
from specsim.planner.explain import Explanation
from specsim.units import show

#: assumptions printed with a plan; the file has them all
SHOWN: int = 6


def plan_text(plan: Plan) -> str:
    """Answer, reason, decisions, memory, runners-up, what to buy next, assumptions."""
    sections = [_answer(plan), _decisions(plan), _memory(plan), _runners_up(plan), _upgrades(plan), _assumptions(plan)]
    return "\n\n".join("\n".join(lines) for lines in map(list, sections) if lines)


def explanation_text(explanation: Explanation) -> str:
    lines = [explanation.sentence, ""]
    lines += table(
        ("change (re-planned)", "tokens/s", "gain"),
        [(s.change, f"{_rate(s.tokens_per_second)}", f"{s.gain:+.1%}") for s in explanation.sensitivities],
    )
    lines += ["", f"without speculation: {_rate(explanation.plain_tokens_per_second)} tokens/s"]
    if explanation.break_even is not None:
        lines.append(f"speculation starts to pay at an acceptance of {explanation.break_even:.2f}")
    return "\n".join(lines)


def _answer(plan: Plan) -> Iterator[str]:
    case, predicted, policy = plan.case, plan.predicted, plan.decision.policy
    with_draft = f" with {case.draft.name}" if case.draft is not None else " with n-gram drafting" if case.ngram else ""
    yield f"{case.target.name}{with_draft} on {case.machine.name}, {case.workload.requests} x {case.workload.name}"
    rate, bound = predicted.tokens_per_second, predicted.bound_tokens_per_second
    yield f"  {_rate(rate)} useful tokens/s; the job takes {_time(predicted.makespan_s)}"
    yield f"  roofline bound {_rate(bound)} tokens/s, of which this reaches {rate / bound:.0%}"
    if predicted.band:
        ends = ", ".join(f"{_rate(value)} at {alpha}" for alpha, value in predicted.band.items())
        yield f"  the acceptance is assumed, not measured: {ends}"
    kind = f"speculate with gamma {policy.gamma}" if policy.gamma else "do not speculate"
    yield f"  {kind}, {plan.decision.strategy}, {policy.batches} x {policy.batch} sequences in flight"
    yield f"  why: {predicted.bottleneck}"


def _decisions(plan: Plan) -> Iterator[str]:
    decision, predicted = plan.decision, plan.predicted
    policy = decision.policy
    yield "What runs where"
    for what, where in _placement(decision).items():
        yield f"  {what:<10} {where}"
    if policy.draft is not None:
        kv = "made anew every round" if policy.draft.kv == "none" else f"kept in {policy.draft.kv}"
        waits = ", loaded after the prefill" if policy.draft.waits else ""
        how = f"on {policy.draft.processor}, {policy.draft.micro_batch} sequences at a time, KV {kv}{waits}"
        yield f"  {'draft':<10} {how}"
    if policy.gamma and policy.draft is None:
        yield f"  {'draft':<10} n-gram drafting: candidates from each sequence's own text, no model"
    if any(home not in ("vram", "ram") for place in decision.layers for home in homes_of(place)):
        fetch = "; of the experts only those that the router asks for" if policy.expert_fetch == "routed" else ""
        yield f"  {'ring':<10} {policy.ring_slots} slots for streamed weights{fetch}"
    for tail in decision.tails[:1]:
        steps = f"({len(decision.tails)} steps)"
        yield f"  {'tail':<10} from {tail.rows} sequences left, other processors where that is faster {steps}"
    round_s = predicted.slot_s * SLOTS[decision.strategy]
    used = ", ".join(f"{name} {share:.0%}" for name, share in predicted.utilisation.items())
    yield f"  {'busy':<10} {used} of a round of {_time(round_s)}"


def _placement(decision: Decision) -> Mapping[str, str]:
    attention: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    kv: Counter[str] = Counter()
    for place in decision.layers:
        a = place.attention
        how = a.processor if a.processor == a.projections else f"{a.processor} (projections {a.projections})"
        attention[f"weights {a.weights}, on {how}"] += 1
        kv[a.kv] += 1
        parts.update(f"{p.weights} on {p.processor}" for p in place.ffn)
    return {
        "attention": _counted(attention, "layers"),
        "KV": _counted(kv, "layers"),
        "FFN": _counted(parts, "parts"),
    }


def _counted(counts: Counter[str], unit: str) -> str:
    total = sum(counts.values())
    if len(counts) == 1:
        return f"{next(iter(counts))} (all {total} {unit})"
    return "; ".join(f"{n} {unit if n > 1 else unit[:-1]} {what}" for what, n in counts.most_common())


def _memory(plan: Plan) -> Iterator[str]:
    budgets = plan.case.machine.budgets()
    peaks = peak_items(plan.case, plan.decision)
    yield "Peak memory"
    rows = []
    for memory, budget in budgets.items():
        if memory == "disk" and not any(peaks[phase][memory] for phase in PHASES):
            continue
        sizes = [show(sum(peaks[phase][memory].values()), "bytes") for phase in PHASES]
        largest = sorted(peaks["decode"][memory].items(), key=lambda item: -item[1])[:3]
        rows.append((memory, *sizes, show(budget, "bytes"), ", ".join(name for name, _ in largest)))
    yield from (f"  {line}" for line in table(("memory", *PHASES, "budget", "largest in decode"), rows))
    itself = plan.case.machine.host.process_bytes
    limit = show(budgets["ram"] + itself, "bytes")
    yield f"  a limit of {limit} holds the RAM budget and {show(itself, 'bytes')} for the process itself"


def _runners_up(plan: Plan) -> Iterator[str]:
    if plan.search.runners_up:
        yield "What lost, and why"
        rows = [(r.plan, f"{_rate(r.tokens_per_second)}", r.reason) for r in plan.search.runners_up]
        yield from (f"  {line}" for line in table(("plan", "tokens/s", "why"), rows))


def _upgrades(plan: Plan) -> Iterator[str]:
    gains = [u for u in plan.search.upgrades if u.gain >= 0.01]
    if gains:
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


def _time(seconds: float) -> str:
    if seconds < 60:
        return show(seconds, "seconds")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _rate(tokens_per_second: float) -> str:
    """At least three significant digits: slow jobs have rates too."""
    return f"{tokens_per_second:.1f}" if tokens_per_second >= 10 else f"{tokens_per_second:.3g}"
