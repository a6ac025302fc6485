"""The placement program against a brute force that shares only the rows and loads with it, not how they are summed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specsim.decision import (
    BATCHES,
    AttentionPlacement,
    Decision,
    LayerPlacement,
    PartPlacement,
    StrategyName,
    homes_of,
)
from specsim.memory import PINNABLE, peak_items, shortfall, totals
from specsim.model import FeedForward
from specsim.partition import PART_BYTES, layer_units
from specsim.planner.candidates import Fixed, make
from specsim.planner.classes import LayerClass, Row, class_rows
from specsim.planner.evaluate import Evaluator
from specsim.planner.options import Loads
from specsim.planner.placement import place, shortage
from specsim.planner.problem import DraftChoice, PlacementProblem
from specsim.units import MiB
from tests.specsim import stories, worlds

Layers = tuple[LayerPlacement, ...]
#: attention's processor, that of its projections, its cache's home, parts on the CPU, and of whole layers the home
Mode = tuple[str, str, str, int, str | None]


def layer_ways(problem: PlacementProblem) -> Iterator[LayerPlacement]:
    """Every placement of one layer. Parts are alike, so only their multiset counts; the matrices of a dense FFN stay on
    one processor."""
    kind = problem.case.target.ffn
    size = layer_units(problem.case.target, kind, problem.policy.part_bytes).parts
    for attention, parts in product(problem.attention, combinations_with_replacement(problem.parts, size)):
        way = LayerPlacement(attention, parts)
        together = kind.is_moe or len({part.processor for part in parts}) == 1
        if together and (len(homes_of(way)) == 1 or not problem.whole_layers):
            yield way


def mode(problem: PlacementProblem, place: LayerPlacement) -> Mode:
    """Layers of one mode even out one another's loads."""
    on_cpu, a = sum(part.processor == "cpu" for part in place.ffn), place.attention
    return a.processor, a.projections, a.kv, on_cpu, a.weights if problem.whole_layers else None


def layer_class(problem: PlacementProblem, of: LayerPlacement) -> LayerClass:
    """The class of all layers of the mode of `of`, with every choice of home."""
    processor, projections, kv, on_cpu, home = mode(problem, of)
    kind, size = problem.case.target.ffn, len(of.ffn)
    here = [a for a in problem.attention if home in (None, a.weights)]
    cores = tuple(a for a in here if (a.processor, a.projections, a.kv) == (processor, projections, kv))
    able = [p for p in problem.parts if home in (None, p.weights)]
    parts = tuple(p for p in able if (on_cpu > 0 if p.processor == "cpu" else on_cpu < size))
    return LayerClass(kind, size, on_cpu, cores, parts)


def all_rows(problem: PlacementProblem) -> dict[Mode, list[Row]]:
    """The rows of every mode."""
    return {
        mode(problem, way): class_rows(
            layer_class(problem, way), problem.verify, problem.attention, problem.parts, problem.policy.ring_slots
        )
        for way in {mode(problem, way): way for way in layer_ways(problem)}.values()
    }


def pass_seconds(problem: PlacementProblem, layers: Layers, rows: dict[Mode, list[Row]]) -> float:
    """The sum over modes of the busiest row, and the embedding and the head."""
    total = max(problem.verify.base.pools.values())
    for one in {mode(problem, p) for p in layers}:
        mine = [p for p in layers if mode(problem, p) == one]
        total += max(
            sum(row.layer + row.attention[p.attention] + sum(row.parts[part] for part in p.ffn) for p in mine)
            for row in rows[one]
        )
    return total


def pool_seconds(problem: PlacementProblem, layers: Layers, phase: str) -> dict[str, float]:
    loads = problem.verify if phase == "verify" else problem.prefill
    kind = problem.case.target.ffn
    attention: dict[AttentionPlacement, Loads] = dict(zip(problem.attention, loads.attention[kind], strict=True))
    parts: dict[PartPlacement, Loads] = dict(zip(problem.parts, loads.parts[kind], strict=True))
    busy = dict(loads.base.pools)
    for used in (load for p in layers for load in (attention[p.attention], *(parts[part] for part in p.ffn))):
        for name, seconds in used.pools.items():
            busy[name] = busy.get(name, 0.0) + seconds
    return busy


def job_seconds(
    problem: PlacementProblem, rows: dict[Mode, list[Row]], layers: Layers, draft: DraftChoice | None
) -> float:
    drafting, transition = (draft.drafting, draft.transition) if draft else (Loads({}, 0.0), Loads({}, 0.0))
    alone = max(drafting.chain, *drafting.pools.values(), 0.0)
    verify = pass_seconds(problem, layers, rows)
    if problem.strategy == "interleaved":
        busy = pool_seconds(problem, layers, "verify")
        shared = max(busy.get(name, 0.0) + drafting.pools.get(name, 0.0) for name in {**busy, **drafting.pools})
        one_round = problem.slots * max(verify, alone, shared)
    else:
        one_round = verify + problem.policy.batches * alone
    sweep = max(pool_seconds(problem, layers, "prefill").values())
    prefill = problem.sweeps * sweep + max(transition.chain, *transition.pools.values(), 0.0)
    return problem.rounds * one_round + problem.prefills * prefill


def fits(problem: PlacementProblem, layers: Layers, draft: DraftChoice | None) -> bool:
    case = problem.case
    policy = problem.policy if draft is None else msgspec.structs.replace(problem.policy, draft=draft.policy)
    budgets = case.machine.budgets()
    if shortfall(budgets, peak_items(case, Decision(problem.strategy, policy, layers))) is not None:  # type: ignore[arg-type]
        return False
    units = layer_units(case.target, case.target.ffn, problem.policy.part_bytes)
    pinned = sum(units.attention_bytes * (p.attention.weights == "pinned") for p in layers)
    pinned += sum(units.part_bytes for p in layers for part in p.ffn if part.weights == "pinned")
    return case.machine.gpu is None or pinned <= PINNABLE * budgets["ram"]


def brute_force(problem: PlacementProblem) -> float | None:
    """The least seconds of all placements that fit, or None."""
    choices = combinations_with_replacement(list(layer_ways(problem)), problem.case.target.layers)
    rows = all_rows(problem)
    priced = [(job_seconds(problem, rows, *choice), choice) for choice in product(choices, problem.drafts or (None,))]
    priced.sort(key=lambda pair: pair[0])
    return next((seconds for seconds, choice in priced if fits(problem, *choice)), None)


@st.composite
def problems(draw: st.DrawFn) -> PlacementProblem:
    """Two layers with FFNs of one part, or of three parts where RAM holds everything and homes are few."""
    case = draw(worlds.cases())
    roomy = draw(st.booleans())
    large, small = [FeedForward(24576), FeedForward(14336, 3, 1)], [FeedForward(8192), FeedForward(2048, 4, 2)]
    ffn = draw(st.sampled_from(large if roomy else small))
    machine = replace(case.machine, ram_budget_bytes=64e9) if roomy else case.machine
    case = replace(case, target=replace(case.target, hidden=4096, layers=2, ffn=ffn, family="llama"), machine=machine)
    strategy: StrategyName = draw(st.sampled_from(["serial", "merged", "interleaved"]))
    gamma = draw(st.sampled_from([1, 4])) if case.draft is not None else 0
    ring = draw(st.sampled_from([0, 2, 3]))
    batch = draw(st.integers(1, case.workload.requests // BATCHES[strategy]))
    candidate = make(case, strategy, gamma, batch, ring, "all", Fixed())
    policy = msgspec.structs.replace(candidate.policy, part_bytes=PART_BYTES)  # few parts: brute force takes them all
    candidate = replace(candidate, policy=policy)
    problem = Evaluator(case).problem(candidate)
    whole = draw(st.booleans())
    return replace(problem, drafts=problem.drafts[:2], most_classes=99, thrift=0.0, whole_layers=whole)


@settings(max_examples=30)
@given(problems())
def test_the_program_finds_what_brute_force_finds(problem: PlacementProblem) -> None:
    placed, least = place(problem), brute_force(problem)
    assert (placed is None) == (least is None)
    if placed is not None and least is not None:
        assert placed.seconds == pytest.approx(least, rel=1e-6)


@settings(max_examples=50)
@given(problems())
def test_what_is_dealt_to_layers_is_what_the_program_promised(problem: PlacementProblem) -> None:
    placed = place(problem)
    if placed is None:
        return
    policy = placed.decision.policy
    draft = next((d for d in problem.drafts if d.policy == policy.draft), None)
    layers = placed.decision.layers
    assert fits(problem, layers, draft)
    assert job_seconds(problem, all_rows(problem), layers, draft) == pytest.approx(placed.seconds, rel=1e-6)


def tight(vram: float) -> PlacementProblem:
    """Plain decoding of one sequence, nothing streamed, on a GPU with `vram` bytes."""
    target = worlds.decoder("target", 2, 1024, FeedForward(2048))
    case = stories.case(stories.machine(vram=vram), target, stories.workload(4, 5, 1))
    return Evaluator(case).problem(make(case, "serial", 0, 1, 0, "all", Fixed()))


def test_the_shortage_is_what_the_placement_that_needs_least_lacks() -> None:
    case, roomy = tight(1e9).case, place(tight(1e9))
    assert roomy is not None
    needs = {phase: peaks["vram"] for phase, peaks in totals(peak_items(case, roomy.decision)).items()}
    worst = max(needs, key=lambda phase: needs[phase])
    assert worst == "prefill"
    assert place(tight(needs[worst] + MiB)) is not None
    assert shortage(tight(needs[worst] + MiB)).missing == {}
    assert place(tight(needs[worst] - 2 * MiB)) is None
    missing = shortage(tight(needs[worst] - 2 * MiB)).missing
    assert max(missing, key=lambda where: missing[where]) == ("prefill", "vram")
    assert missing["prefill", "vram"] == pytest.approx(2 * MiB, rel=0.1)  # a cache of some KiB can move to RAM
