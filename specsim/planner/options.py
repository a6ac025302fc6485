"""What may be done with each unit of the target and with the draft, and what each choice loads.

Loads are measured on the schedule itself: one layer is lowered with the choice and without it, and the difference is
the choice's cost. So the placement program cannot disagree with the simulator about what a task costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from specsim.case import Case
from specsim.cost import timing
from specsim.cost.shapes import PassShape
from specsim.cost.work import kv_bytes
from specsim.decision import (
    CHUNK_TOKENS,
    MEMORY_OF,
    AttentionPlacement,
    DraftPolicy,
    LayerPlacement,
    PartPlacement,
    Policy,
)
from specsim.hardware import Machine
from specsim.memory import PINNABLE, kv_layer_bytes
from specsim.model import FeedForward, Model
from specsim.partition import embedding_bytes, layer_units, whole_bytes
from specsim.positions import held_positions
from specsim.schedule.drafting import lower_draft, micro_batches
from specsim.schedule.graph import Builder, Graph
from specsim.schedule.passes import PassPlan, lower_pass, on_main
from specsim.simulator import engine, pricing
from specsim.stages import Layout


@dataclass(frozen=True, slots=True)
class Loads:
    """Seconds that each pool is busy, and seconds that the work takes when nothing else is in its way (`chain`;
    copies of weights and caches do not count, as they can run ahead, unless they wait for the router)."""

    pools: Mapping[str, float]
    chain: float

    def minus(self, other: Loads, divisor: float = 1.0) -> Loads:
        names = self.pools.keys() | other.pools.keys()
        pools = {n: (self.pools.get(n, 0.0) - other.pools.get(n, 0.0)) / divisor for n in names}
        return Loads({n: s for n, s in pools.items() if s > 1e-15}, max(0.0, self.chain - other.chain) / divisor)

    def times(self, factor: float) -> Loads:
        return Loads({name: seconds * factor for name, seconds in self.pools.items()}, self.chain * factor)


def measure(graph: Graph, machine: Machine, *, waiting_loads: bool) -> Loads:
    """Loads of a graph. `waiting_loads`: copies of weights are part of the chain."""
    seconds, demands = pricing.price(graph, machine)
    pools: dict[str, float] = {}
    for duration, demand in zip(seconds, demands, strict=True):
        for pool, share in demand:
            pools[pool] = pools.get(pool, 0.0) + duration * share
    tasks = graph.tasks
    alone = [
        0.0 if task.kind in ("load", "read", "kv") and not waiting_loads else duration
        for task, duration in zip(tasks, seconds, strict=True)
    ]
    if not tasks:
        return Loads({}, 0.0)
    _, ends = engine.run([t.stream for t in tasks], alone, [t.deps for t in tasks], [()] * len(tasks))
    return Loads(pools, max(ends))


def ram_holds_all(case: Case, policy: Policy) -> bool:
    """Whether RAM takes every weight page-locked beside all caches: then nothing slower is worth a look."""
    budget = case.machine.budgets()["ram"]
    weights = float(whole_bytes(case.target))
    caches = case.target.layers * kv_layer_bytes(case, policy)
    others = caches + embedding_bytes(case.target)
    if case.draft is not None and policy.gamma:
        positions = held_positions(case.workload, policy)
        others += whole_bytes(case.draft) + case.draft.layers * kv_bytes(case.draft, positions)
    return weights + caches <= PINNABLE * budget and weights + others <= budget


def attention_placements(machine: Machine, homes: Sequence[str]) -> Iterator[AttentionPlacement]:
    """Every way to hold (in one of `homes`) and run the attention of a layer."""
    if machine.gpu is None:
        for home in homes:
            yield AttentionPlacement(home, "cpu", "cpu", "ram")  # type: ignore[arg-type]
        return
    for home in homes:
        yield AttentionPlacement(home, "gpu", "gpu", "vram")  # type: ignore[arg-type]
        yield AttentionPlacement(home, "gpu", "gpu", "ram")  # type: ignore[arg-type]
        yield AttentionPlacement(home, "cpu", "gpu", "ram")  # type: ignore[arg-type]
        if MEMORY_OF[home] == "ram":
            yield AttentionPlacement(home, "cpu", "cpu", "ram")  # type: ignore[arg-type]


def part_placements(machine: Machine, homes: Sequence[str]) -> Iterator[PartPlacement]:
    """Every way to hold and run one part of an FFN."""
    for home in homes:
        if machine.gpu is not None:
            yield PartPlacement(home, "gpu")  # type: ignore[arg-type]
        if machine.gpu is None or MEMORY_OF[home] == "ram":
            yield PartPlacement(home, "cpu")  # type: ignore[arg-type]


def weight_homes(case: Case, policy: Policy) -> tuple[str, ...]:
    """Homes worth a look for the target's weights. Without a ring nothing can be streamed."""
    fast = case.machine.fast
    if policy.ring_slots == 0:
        return (fast,)
    if case.machine.gpu is None:
        return (fast, "disk")
    return (fast, "pinned") if ram_holds_all(case, policy) else (fast, "pinned", "pageable", "disk")


def draft_policies(case: Case, policy: Policy) -> Iterator[DraftPolicy]:
    """Every way to run the draft for batches of `policy.batch`."""
    sizes = sorted({-(-policy.batch // n) for n in (1, 3, 8, 20)}, reverse=True)
    if case.machine.gpu is None:
        yield from (DraftPolicy("cpu", kv, size) for kv, size in product(("ram", "none"), sizes[:3]))  # type: ignore[arg-type]
        return
    # Loaded after a prefill, the draft is still there when the next wave is prefilled.
    one_prefill = policy.refill or policy.in_flight >= case.workload.requests
    for waits in (False, True) if one_prefill else (False,):
        for size in sizes:
            yield DraftPolicy("gpu", "vram", size, waits)
            yield DraftPolicy("gpu", "none", size, waits)
            if size < policy.batch or policy.batch == 1:
                yield DraftPolicy("gpu", "ram", size, waits)
    yield DraftPolicy("cpu", "ram", sizes[0])


@dataclass(frozen=True, slots=True)
class PassLoads:
    """Loads of one pass: what every placement pays, and per layer or part for each choice, by kind of FFN."""

    base: Loads
    attention: Mapping[FeedForward, tuple[Loads, ...]]
    parts: Mapping[FeedForward, tuple[Loads, ...]]


@dataclass(frozen=True, slots=True)
class PassOption:
    """What one pass is lowered with, besides the choices."""

    phase: str
    batches: int
    micro_batches: int
    part_bytes: int
    routed: bool
    tensor: int = 1
    chunk_tokens: int = CHUNK_TOKENS


def pass_loads(
    case: Case,
    option: PassOption,
    shape: PassShape,
    attention: tuple[AttentionPlacement, ...],
    parts: tuple[PartPlacement, ...],
) -> PassLoads:
    """Loads of a pass of `shape` (that of one batch) for every choice of attention and of parts."""
    machine, target = case.machine, case.target

    def lowered(model: Model, layers: tuple[LayerPlacement, ...]) -> Loads:
        if option.phase == "prefill":
            layers = on_main(layers, machine.main)
        plan = PassPlan(
            model,
            layers,
            machine.main,
            option.phase,
            0,
            option.micro_batches,
            option.part_bytes,
            option.routed,
            Layout((range(len(layers)),), option.tensor),
            option.chunk_tokens,
        )
        # Batches of one pass overlap, so the chain is that of one of them; the pools serve them all.
        alone, *rest = (_lower(plan, shape, "AB"[:n], machine) for n in sorted({1, option.batches}))
        return Loads(rest[0].pools, alone.chain) if rest else alone

    base = lowered(target, ())
    by_attention, by_part = {}, {}
    resident = AttentionPlacement(machine.fast, machine.main, machine.main, machine.fast)  # type: ignore[arg-type]
    for kind in target.ffn_kinds:
        model = replace(target, ffn=kind, dense_ffn=None, dense_layers=())
        count = layer_units(target, kind, option.part_bytes).parts
        bare = lowered(model, (LayerPlacement(resident, ()),))
        by_attention[kind] = tuple(lowered(model, (LayerPlacement(a, ()),)).minus(base) for a in attention)
        by_part[kind] = tuple(
            lowered(model, (LayerPlacement(resident, (part,) * count),)).minus(bare, count) for part in parts
        )
    return PassLoads(base, by_attention, by_part)


def _lower(plan: PassPlan, shape: PassShape, batches: str, machine: Machine) -> Loads:
    b = Builder(ring_slots=64)
    lower_pass(b, plan, dict.fromkeys(batches, shape), dict.fromkeys(batches, ()))
    return measure(b.graph(), machine, waiting_loads=plan.routed)


def draft_loads(case: Case, policy: Policy, draft: DraftPolicy, context: float) -> Loads:
    """Loads of drafting once for one batch. One micro-batch is lowered; the others are like it."""
    assert case.draft is not None
    count = micro_batches(draft, policy.batch)
    b = Builder(ring_slots=0)
    lower_draft(
        b,
        case.draft,
        draft,
        policy.gamma,
        "draft.0/A",
        rows=policy.batch / count,
        context=context,
        joining=0.0,
        after=(),
        gpu=case.machine.gpu is not None,
    )
    loads = measure(b.graph(), case.machine, waiting_loads=True)
    # Copies of one micro-batch's KV hide behind another's steps; the steps of all follow one another.
    steps = sum(timing.seconds(case.machine, task.stream, task.work) for task in b.tasks if task.kind == "draft")
    pools = {name: seconds * count for name, seconds in loads.pools.items()}
    return Loads(pools, loads.chain + (count - 1) * steps)
