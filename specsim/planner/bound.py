"""The roofline of an offloaded job: seconds that no plan of a candidate can beat, in closed form.

In every pass each unit of the target is resident in the fast memory, or copied there, or computed beside its slow home.
Two ways that share work at full speed take 1 / (1/a + 1/b) of the time that each would take alone, so
    pass >= sum over units that cannot be resident of 1 / (1/copy + 1/cpu)     (weights have to move or be met)
    pass >= sum over units of 1 / (1/gpu + 1/cpu) + head                       (every unit has to be computed)
    pass >= (weights - fast memory - RAM) / disk rate                          (what fits nowhere is read)
and drafting takes at least gamma steps of the whole batch at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from specsim.case import Case
from specsim.cost import timing
from specsim.cost import work as cost
from specsim.cost.shapes import PassShape, decode_shape, prefill_shape
from specsim.cost.work import Work
from specsim.memory import fixed_items, totals
from specsim.partition import layer_units
from specsim.planner.candidates import Candidate
from specsim.schedule.lower import SLOTS


@dataclass(frozen=True, slots=True)
class _Unit:
    """`number` equal units: bytes of each, seconds on either processor (inf: it cannot run there)."""

    number: int
    size: float
    gpu_s: float
    cpu_s: float


def pass_bound(case: Case, shape: PassShape, room: float, *, routed: bool = False, prefill: bool = False) -> float:
    """Seconds that a pass of `shape` takes at least with `room` bytes of fast memory for weights."""
    machine = case.machine
    units = _units(case, shape, prefill=prefill)
    head = timing.seconds(machine, machine.main, (cost.head(case.target, shape.head_rows),))
    compute = head + sum(unit.number * _together(unit.gpu_s, unit.cpu_s) for unit in units)
    copy = "h2d" if machine.gpu else "disk"
    rate = timing.copy_rate(machine, copy, pinned=True)
    moves = []
    for unit in units:
        share = 1.0
        if routed and case.target.ffn.is_moe:
            share = cost.distinct_experts(case.target.ffn, shape.tokens) / case.target.ffn.experts
        in_place = unit.cpu_s if machine.gpu else math.inf
        moves.append((_together(unit.size * share / rate, in_place), unit))
    moving = 0.0
    for seconds, unit in sorted(moves, key=lambda move: -move[0] / move[1].size):  # dearest per byte stays resident
        resident = min(unit.number, max(0.0, room) / unit.size)
        room -= resident * unit.size
        moving += (unit.number - resident) * seconds
    return max(compute, moving, _disk_seconds(case, units))


def job_bound(case: Case, candidate: Candidate, mean_prompt: float, rounds: float, prompts: list[float]) -> float:
    """Seconds that a job of `rounds` rounds takes at least; `prompts` are the lengths of its first prefill."""
    policy, machine = candidate.policy, case.machine
    room = machine.budgets()[machine.fast] - totals(fixed_items(case, policy))["decode"][machine.fast]
    slots = SLOTS[candidate.strategy]
    window = case.target.sliding_window
    sequences = policy.in_flight / slots
    shape = decode_shape(sequences, policy.gamma + 1, mean_prompt, window)
    routed = policy.expert_fetch == "routed"
    first = prefill_shape(prompts, window)
    best = math.inf
    for drafting, weights in _drafts(case, candidate, mean_prompt):
        if room < weights:
            continue
        verify = slots * pass_bound(case, shape, room - weights, routed=routed)
        together = max(verify, drafting) if candidate.strategy == "interleaved" else verify + drafting
        best = min(best, rounds * together + pass_bound(case, first, room, prefill=True))
    return best


def _drafts(case: Case, candidate: Candidate, context: float) -> list[tuple[float, float]]:
    """(seconds of drafting for all in flight, bytes of fast memory) of the draft on each processor."""
    policy, machine, draft = candidate.policy, case.machine, case.draft
    if policy.gamma == 0 or draft is None:
        return [(0.0, 0.0)]
    works = cost.whole_pass(draft, decode_shape(policy.batch, 1, context, draft.sliding_window))
    ways = []
    for processor in ("gpu", "cpu") if machine.gpu else ("cpu",):
        step = timing.seconds(machine, processor, works)
        fast = (processor == "gpu") == (machine.gpu is not None)
        ways.append((policy.batches * policy.gamma * step, float(draft.weight_bytes) if fast else 0.0))
    return ways


def _units(case: Case, shape: PassShape, *, prefill: bool) -> list[_Unit]:
    target, machine = case.target, case.machine
    units = []

    def unit(number: int, size: float, works: tuple[Work, ...]) -> _Unit:
        gpu = timing.seconds(machine, "gpu", works) if machine.gpu else math.inf
        cpu = math.inf if prefill and machine.gpu else timing.seconds(machine, "cpu", works)
        return _Unit(number, size, gpu, cpu)

    for kind in dict.fromkeys(target.layer_ffn(layer) for layer in range(target.layers)):
        layers = sum(target.layer_ffn(layer) == kind for layer in range(target.layers))
        sizes = layer_units(target, kind)
        attention = (cost.projections(target, shape.tokens), cost.attention_core(target, shape))
        part = (cost.feed_forward(target, kind, shape.tokens, 1 / sizes.parts),)
        units.append(unit(layers, sizes.attention_bytes, attention))
        units.append(unit(layers * sizes.parts, sizes.part_bytes, part))
    return units


def _disk_seconds(case: Case, units: list[_Unit]) -> float:
    budgets = case.machine.budgets()
    weights = sum(unit.number * unit.size for unit in units)
    nowhere = weights - sum(size for memory, size in budgets.items() if memory != "disk")
    return max(0.0, nowhere) / timing.copy_rate(case.machine, "disk", pinned=True)


def _together(a: float, b: float) -> float:
    """Two ways that share a piece of work in the best proportion."""
    if a == 0 or b == 0:
        return 0.0
    return 1 / (1 / a + 1 / b)
