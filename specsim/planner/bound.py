"""The roofline of an offloaded job: seconds that no plan of a candidate can beat, in closed form.

In every pass each unit of the target is resident in the fast memory, or copied there, or computed beside its slow home.
Two resources that share work take at least the mean of their loads, with any weights: for every w in 0..1
    pass >= w copies + (1 - w) cpu >= sum over units that cannot be resident of min(w copy, (1 - w) cpu)
    pass >= w gpu + (1 - w) cpu    >= w head + sum over operations of min(w gpu, (1 - w) cpu)
    pass >= (weights + caches + ... - fast memory - RAM) / disk rate           (what fits nowhere is read)
(weak duality of the linear program that shares the work). The largest is at a w where some unit takes equally long
either way. Drafting takes at least gamma steps of the whole batch at once.

A round with fewer rows or newcomers takes less, but never less for each of them, and never less than a single row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from specsim.case import Case
from specsim.cost import timing
from specsim.cost import work as cost
from specsim.cost.shapes import PassShape, decode_shape, prefill_shape
from specsim.cost.work import Work
from specsim.decision import Policy, slots
from specsim.memory import fixed_items, kv_layer_bytes, ring_bytes, totals
from specsim.partition import PART_BYTES, layer_units
from specsim.planner.candidates import Candidate
from specsim.positions import join_tokens
from specsim.stages import stages


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job asks for, whatever the plan: `full_rounds` is rounds times rows over the rows in flight, `rounds` the
    least number of rounds with any rows, `context` the mean cached positions of a row, `prompts` the lengths of the
    first prefill sweep, `joining` the prompt tokens of all that join later."""

    full_rounds: float
    rounds: float
    context: float
    prompts: list[float]
    joining: float = 0.0


@dataclass(frozen=True, slots=True)
class _Unit:
    """`number` equal units: bytes of each, the `share` of them that a fetch moves, and for each of its operations
    seconds on the main processor and on the other (inf: it cannot run there)."""

    number: int
    size: float
    share: float
    works: tuple[tuple[float, float], ...]

    @property
    def other_s(self) -> float:
        return sum(other for _, other in self.works)


def pass_bound(
    case: Case,
    shape: PassShape,
    room: float,
    *,
    routed: bool = False,
    prefill: bool = False,
    held: float = 0.0,
    part_bytes: int = PART_BYTES,
    first: bool = True,
) -> float:
    """Seconds that a pass of `shape` takes at least with `room` bytes of fast memory for weights. `held` bytes of fast
    memory and RAM together are taken by all that cannot go to disk. The `first` device has the head."""
    units = _units(case, shape, part_bytes, routed=routed, prefill=prefill)
    head = _head_seconds(case, shape) if first else 0.0
    return max(_computing(units, head), _moving(case, units, room), _disk_seconds(case, units, held))


def stages_bound(case: Case, candidate: Candidate, demand: Demand) -> float:
    """Seconds that a job over several devices takes at least: those of its slowest stage, and as long as one batch
    computes in all of them, one after another."""
    policy = candidate.policy
    own = {(s.case.target, s.first): s for s in stages(case, policy)}
    alone = max(job_bound(s.case, candidate, demand, first=s.first) for s in own.values())
    full = demand.full_rounds * _through_all(case, candidate, float(policy.batch), demand.context)
    least = demand.rounds * _through_all(case, candidate, 1.0, demand.context)
    return max(alone, full, least)


def _through_all(case: Case, candidate: Candidate, rows: float, context: float) -> float:
    """A batch of `rows` on its way through all stages."""
    policy = candidate.policy
    shape = decode_shape(rows, policy.gamma + 1, context, case.target.sliding_window)
    seconds = 0.0
    for stage in stages(case, policy):
        units = _units(stage.case, shape, policy.part_bytes, routed=False, prefill=False)
        seconds += _computing(units, _head_seconds(stage.case, shape) if stage.first else 0.0)
    return seconds


def _head_seconds(case: Case, shape: PassShape) -> float:
    return timing.seconds(case.machine, case.machine.main, (cost.head(case.target, shape.head_rows),))


def job_bound(case: Case, candidate: Candidate, demand: Demand, *, first: bool = True) -> float:
    """Seconds that a job takes at least; inf where memory cannot even hold what every placement needs. The `first`
    device of several has the head."""
    policy, machine = candidate.policy, case.machine
    fixed = totals(fixed_items(case, policy, first=first))["decode"]
    caches = case.target.layers * kv_layer_bytes(case, policy)
    free = machine.budgets()[machine.fast] - fixed[machine.fast] - (caches if machine.gpu is None else 0.0)
    target = case.target
    layers = sum(n * target.layer_parameters(kind) for kind, n in target.ffn_kinds.items()) * target.element_bytes
    ring = ring_bytes(case, policy)
    held = sum(size for memory, size in fixed.items() if memory != "disk") + caches
    prompts = prefill_shape(demand.prompts, case.target.sliding_window)
    best = math.inf
    for processor, weights in _drafts(case, candidate):
        draft = float(case.draft.weight_bytes) if processor is not None and case.draft is not None else 0.0
        room, kept = free - weights, held + draft
        if room < layers:  # some of it comes through a ring
            room, kept = room - ring, kept + ring
        if room < 0 or kept > sum(size for memory, size in machine.budgets().items() if memory != "disk"):
            continue
        decode = _decode_bound(case, candidate, processor, demand, room, kept, first)
        sweep = pass_bound(
            case, prompts, room + weights, prefill=True, held=held, part_bytes=policy.part_bytes, first=first
        )
        best = min(best, decode + sweep)
    return best


def _decode_bound(
    case: Case, candidate: Candidate, processor: str | None, demand: Demand, room: float, held: float, first: bool
) -> float:
    policy = candidate.policy

    def round_bound(rows: float) -> float:
        return _round_bound(case, candidate, processor, rows, demand.context, room, held, first)

    full = demand.full_rounds * round_bound(policy.in_flight)
    least = joining = 0.0
    if demand.rounds:
        least = demand.rounds * round_bound(1.0)
    if demand.joining:
        most = join_tokens(case.workload)
        shape = PassShape(0.0, most, 0.0, 0.0, 0.0)
        joining = demand.joining / most * _verify_bound(case, policy, shape, room, held, first)
    return max(full, least, joining)


def _round_bound(
    case: Case,
    candidate: Candidate,
    processor: str | None,
    rows: float,
    context: float,
    room: float,
    held: float,
    first: bool,
) -> float:
    """A round with `rows` sequences, the draft on `processor`."""
    policy, passes = candidate.policy, slots(candidate.strategy, candidate.policy)
    shape = decode_shape(rows / passes, policy.gamma + 1, context, case.target.sliding_window)
    verify = passes * _verify_bound(case, policy, shape, room, held, first)
    if processor is None or case.draft is None:
        return verify
    step = decode_shape(rows / policy.batches, 1, context, case.draft.sliding_window)
    seconds = timing.seconds(case.machine, f"{processor}.draft", cost.whole_pass(case.draft, step))
    drafting = policy.batches * policy.gamma * seconds
    return max(verify, drafting) if candidate.strategy == "interleaved" else verify + drafting


def _verify_bound(case: Case, policy: Policy, shape: PassShape, room: float, held: float, first: bool) -> float:
    routed = policy.expert_fetch == "routed"
    return pass_bound(case, shape, room, routed=routed, held=held, part_bytes=policy.part_bytes, first=first)


def _drafts(case: Case, candidate: Candidate) -> list[tuple[str | None, float]]:
    """Each processor that may draft, with the bytes of fast memory that this takes."""
    if candidate.policy.gamma == 0 or case.draft is None:
        return [(None, 0.0)]
    weights = float(case.draft.weight_bytes)
    return [("gpu", weights), ("cpu", 0.0)] if case.machine.gpu else [("cpu", weights)]


def _units(case: Case, shape: PassShape, part_bytes: int, *, routed: bool, prefill: bool) -> list[_Unit]:
    target, machine = case.target, case.machine

    def pair(work: Work) -> tuple[float, float]:
        """Without what starting a task takes: which works are one task is the placement's choice."""
        main = timing.compute_seconds(machine.processor(machine.main), work)
        alone = prefill or machine.gpu is None
        return main, math.inf if alone else timing.compute_seconds(machine.processor("cpu"), work)

    units = []
    for kind, layers in target.ffn_kinds.items():
        sizes = layer_units(target, kind, part_bytes)
        attention = pair(cost.projections(target, shape.tokens)), pair(cost.attention_core(target, shape))
        part = pair(cost.feed_forward(target, kind, shape.tokens, 1 / sizes.parts))
        used = cost.distinct_experts(kind, shape.tokens) / kind.experts if routed and kind.is_moe else 1.0
        units.append(_Unit(layers, sizes.attention_bytes, 1.0, attention))
        units.append(_Unit(layers * sizes.parts, sizes.part_bytes, used, (part,)))
    return units


def _computing(units: list[_Unit], head: float) -> float:
    """Every operation on the main processor or on the other one; the head on the main one."""
    works = [(unit.number, *work) for unit in units for work in unit.works]
    return max(
        w * head + sum(number * _least(w, v, main, other) for number, main, other in works)
        for w, v in _weights((main, other) for _, main, other in works)
    )


def _moving(case: Case, units: list[_Unit], room: float) -> float:
    """What is not resident is copied, or met beside its slow home."""
    machine = case.machine
    rate = timing.copy_rate(machine, "h2d" if machine.gpu else "disk", pinned=True)
    ways = [(unit, unit.size * unit.share / rate, unit.other_s) for unit in units]
    most = 0.0
    for w, v in _weights((copy, other) for _, copy, other in ways):
        free, total = max(0.0, room), 0.0
        costs = [(_least(w, v, copy, other), unit) for unit, copy, other in ways]
        for seconds, unit in sorted(costs, key=lambda c: -c[0] / c[1].size):  # dearest per byte stays resident
            resident = min(float(unit.number), free / unit.size)
            free -= resident * unit.size
            total += (unit.number - resident) * seconds
        most = max(most, total)
    return most


def _disk_seconds(case: Case, units: list[_Unit], held: float) -> float:
    """What no memory has room for is read, if only the share of it that a fetch moves."""
    budgets = case.machine.budgets()
    weights = sum(unit.number * unit.size for unit in units)
    nowhere = weights + held - sum(size for memory, size in budgets.items() if memory != "disk")
    share = min(unit.share for unit in units)
    return max(0.0, nowhere) * share / timing.copy_rate(case.machine, "disk", pinned=True)


def _weights(ways: Iterable[tuple[float, float]]) -> set[tuple[float, float]]:
    """Weights of two resources, adding up to 1, at which the bound can be largest."""
    return {(1.0, 0.0), *((b / (a + b), a / (a + b)) for a, b in ways if 0 < a + b < math.inf)}


def _least(w: float, v: float, a: float, b: float) -> float:
    """The cheaper way, at `w` a second of the first resource and `v` of the second."""
    return w * a if b == math.inf else min(w * a, v * b)
