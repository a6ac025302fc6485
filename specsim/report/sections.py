"""What is said of a plan, as words and rows: a terminal and a page say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from specsim.answer import Plan, Upgrade
from specsim.decision import Decision, homes_of, slots
from specsim.devices import bare
from specsim.memory import PHASES, peak_items
from specsim.partition import stage_layers
from specsim.units import show

MEMORY_HEADERS: Final = ("memory", *PHASES, "budget", "largest in decode")
LOST_HEADERS: Final = ("plan", "tokens/s", "why")
#: twice a resource that gives less is not worth naming
WORTH: Final = 0.01


def question(plan: Plan) -> str:
    """Which models, on which machine, for which work."""
    case = plan.case
    with_draft = f" with {case.draft.name}" if case.draft is not None else " with n-gram drafting" if case.ngram else ""
    return f"{case.target.name}{with_draft} on {case.machine.name}, {case.workload.requests} x {case.workload.name}"


def choice(plan: Plan) -> str:
    """Speculation, strategy and batches in a line."""
    policy = plan.decision.policy
    kind = f"speculate with gamma {policy.gamma}" if policy.gamma else "do not speculate"
    return f"{kind}, {plan.decision.strategy}, {policy.batches} x {policy.batch} sequences in flight"


def band(plan: Plan) -> str | None:
    """What an acceptance that nobody measured may do to the answer; None where there is none."""
    if not plan.predicted.band:
        return None
    ends = ", ".join(f"{rate(value)} at {alpha}" for alpha, value in plan.predicted.band.items())
    return f"the acceptance is assumed, not measured: {ends}"


def decisions(plan: Plan) -> Iterator[tuple[str, str]]:
    """What runs where: what, and where."""
    decision, predicted = plan.decision, plan.predicted
    policy = decision.policy
    if plan.case.machine.devices > 1:
        yield "devices", _devices(plan)
    yield from _placement(decision).items()
    if policy.draft is not None:
        kv = "made anew every round" if policy.draft.kv == "none" else f"kept in {policy.draft.kv}"
        waits = ", loaded after the prefill" if policy.draft.waits else ""
        yield (
            "draft",
            f"on {policy.draft.processor}, {policy.draft.micro_batch} sequences at a time, KV {kv}{waits}",
        )
    if policy.gamma and policy.draft is None:
        yield "draft", "n-gram drafting: candidates from each sequence's own text, no model"
    if any(home not in ("vram", "ram") for place in decision.layers for home in homes_of(place)):
        fetch = "; of the experts only those that the router asks for" if policy.expert_fetch == "routed" else ""
        yield "ring", f"{policy.ring_slots} slots for streamed weights{fetch}"
    for tail in decision.tails[:1]:
        steps = f"({len(decision.tails)} steps)"
        yield "tail", f"from {tail.rows} sequences left, other processors where that is faster {steps}"
    round_s = predicted.slot_s * slots(decision.strategy, policy)
    yield "busy", f"{_used(predicted.utilisation)} of a round of {duration(round_s)}"


def _used(utilisation: Mapping[str, float]) -> str:
    """Busy shares by resource; of like devices the least and the most."""
    shares: dict[str, list[float]] = {}
    for name, share in utilisation.items():
        shares.setdefault(bare(name), []).append(share)
    words = {name: (f"{min(found):.0%}", f"{max(found):.0%}") for name, found in shares.items()}
    return ", ".join(f"{name} {low}" + (f" to {high}" if high != low else "") for name, (low, high) in words.items())


def _devices(plan: Plan) -> str:
    """How the target is cut."""
    policy = plan.decision.policy
    sizes = Counter(len(run) for run in stage_layers(plan.case.target, policy.stages))
    layers = ", ".join(f"{count} of {size} layers" if count > 1 else f"{size} layers" for size, count in sizes.items())
    stages = f"{policy.stages} stages ({layers})" if policy.stages > 1 else "one stage"
    split = f", each layer split over {policy.tensor}" if policy.tensor > 1 else ""
    return f"{policy.devices} of {plan.case.machine.devices}: {stages}{split}"


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


def used_memories(plan: Plan) -> list[str]:
    """The memories that the plan puts anything in; the disk is left out where it holds nothing."""
    peaks = peak_items(plan.case, plan.decision)
    return [
        memory
        for memory in plan.case.machine.budgets()
        if memory != "disk" or any(peaks[phase][memory] for phase in PHASES)
    ]


def memory_rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Peaks by phase beside the budget, under `MEMORY_HEADERS`."""
    budgets = plan.case.machine.budgets()
    peaks = peak_items(plan.case, plan.decision)
    for memory in used_memories(plan):
        sizes = [show(sum(peaks[phase][memory].values()), "bytes") for phase in PHASES]
        largest = sorted(peaks["decode"][memory].items(), key=lambda item: -item[1])[:3]
        yield memory, *sizes, show(budgets[memory], "bytes"), ", ".join(name for name, _ in largest)


def memory_limit(plan: Plan) -> str:
    """What a control group has to allow."""
    itself = plan.case.machine.host.process_bytes
    limit = show(plan.case.machine.ram_budget_bytes + itself, "bytes")
    return f"a limit of {limit} holds the RAM budget and {show(itself, 'bytes')} for the process itself"


def lost(plan: Plan) -> list[tuple[str, ...]]:
    """The runners-up, under `LOST_HEADERS`."""
    return [(r.plan, rate(r.tokens_per_second), r.reason) for r in plan.search.runners_up]


def upgrades(plan: Plan) -> list[Upgrade]:
    """What would make it faster, the most first."""
    return [upgrade for upgrade in plan.search.upgrades if upgrade.gain >= WORTH]


def duration(seconds: float) -> str:
    if seconds < 60:
        return show(seconds, "seconds")
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def rate(tokens_per_second: float) -> str:
    """At least three significant digits: slow jobs have rates too."""
    return f"{tokens_per_second:.1f}" if tokens_per_second >= 10 else f"{tokens_per_second:.3g}"
