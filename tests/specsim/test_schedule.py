"""Rounds and prefills of every strategy: names, order, traffic, and stories as exact event logs.

Where a log is exact, sizes are those of `stories.even` (a unit 24 bytes, hidden state and K and V of a layer 4 bytes a
token), the link moves 4 bytes a second, a kernel takes 4 s: a verify pass of two layers 28 s and its embedding, a draft
step of one layer 16 s.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from specsim.case import Case
from specsim.cost import work as cost
from specsim.cost.shapes import decode_shape, prefill_shape
from specsim.decision import BATCHES, Decision, DraftPolicy, Tail, slots
from specsim.model import Model
from specsim.partition import PART_BYTES, layer_units
from specsim.schedule.graph import TASK_NAME, Graph, Ring, Task
from specsim.schedule.lower import STRATEGIES, lower_prefill, lower_rounds, lower_transition
from specsim.schedule.round import RoundShape
from tests.specsim import stories
from tests.specsim.variants import ALL, TARGET, variants

EVEN, DRAFT = stories.even(), stories.even(layers=1)


def exact_case(
    target: Model = EVEN, draft: Model = DRAFT, *, cpu: float = 4.0, bare: bool = False, disk: float = 4.0
) -> Case:
    gpu, host = stories.processor(overhead=4), stories.processor(overhead=cpu)
    return stories.case(stories.machine(gpu=gpu, cpu=host, bare=bare, disk=disk), target, draft=draft)


def rounds(case: Case, decision: Decision, *, rows: float = 1, context: float = 4, count: int = 1) -> Graph:
    return lower_rounds(case, decision, RoundShape(rows, context), count)


def named(graph: Graph, kind: str) -> list[Task]:
    return [task for task in graph.tasks if task.kind == kind]


def traffic(tasks: list[Task]) -> float:
    return sum(work.bytes for task in tasks for work in task.work)


# every graph


@pytest.mark.parametrize(("strategy", "bare", "placed"), ALL)
def test_every_graph_is_well_named_and_points_back(strategy: str, bare: bool, placed: dict[str, Any]) -> None:
    streams = {"cpu", "cpu.draft", "disk"} | (
        set() if bare else {"gpu", "gpu.draft", "h2d", "h2d.kv", "h2d.act", "d2h"}
    )
    for case, decision in variants(strategy, bare, placed):
        lengths = [4.0, 7.0, 5.0]
        made = [
            lower_rounds(case, decision, RoundShape(decision.policy.in_flight, 10, joining), 3) for joining in (0, 7)
        ]
        for graph in (*made, lower_prefill(case, decision, lengths)):
            names = [task.name for task in graph.tasks]
            assert len(set(names)) == len(names)
            assert [name for name in names if not TASK_NAME.fullmatch(name)] == []
            assert all(-1 < dep < i for i, task in enumerate(graph.tasks) for dep in task.deps)
            assert {task.stream for task in graph.tasks} <= streams
            assert all(task.work for task in graph.tasks)
            assert all(0 <= end < len(names) for ends in graph.round_ends for end in ends)


@pytest.mark.parametrize(("strategy", "bare", "placed"), ALL)
def test_a_round_moves_every_streamed_unit_once_per_pass(strategy: str, bare: bool, placed: dict[str, Any]) -> None:
    streamed = {"h2d": 0, "disk": 0}
    for layer, place in enumerate(stories.layers(TARGET, **placed)):
        units = layer_units(TARGET, TARGET.layer_ffn(layer), PART_BYTES)
        sizes = [(place.attention.weights, place.attention.projections, units.attention_bytes)]
        sizes += [(part.weights, part.processor, units.part_bytes) for part in place.ffn]
        for home, processor, size in sizes:
            streamed["disk"] += size * (home == "disk")
            streamed["h2d"] += size * (processor == "gpu" and home in ("pinned", "pageable", "disk"))
    for case, decision in variants(strategy, bare, placed):
        if decision.policy.expert_fetch == "routed":
            continue
        graph = rounds(case, decision, rows=decision.policy.in_flight)
        for stream, size in streamed.items():
            tasks = [t for t in graph.tasks if t.stream == stream and t.kind in ("load", "read")]
            assert traffic(tasks) == slots(strategy, decision.policy) * size


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_round_ends_are_the_heads_of_every_batch(strategy: str) -> None:
    graph = rounds(exact_case(), stories.decision(strategy, stories.layers(EVEN)), count=2)
    names = [[graph.tasks[i].name for i in ends] for ends in graph.round_ends]
    batches = "AB"[: BATCHES[strategy]]
    assert names == [[f"verify.{number}/{batch}/head/logits" for batch in batches] for number in range(2)]


# traffic of caches and drafts


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("micro", [1, 2])
def test_caches_in_ram_come_in_and_their_new_positions_go_back(strategy: str, window: int | None, micro: int) -> None:
    target = stories.model(layers=3, sliding_window=window)
    numbers = {"gamma": 2, "batch": 2, "draft": stories.on_gpu(), "verify_micro_batches": micro}
    decision = stories.decision(strategy, stories.layers(target, kv="ram"), **numbers)
    sequences = decision.policy.in_flight
    graph = rounds(stories.case(target=target, draft=stories.model()), decision, rows=sequences, context=10)
    kv_in = [t for t in named(graph, "kv") if "kv_in" in t.name]
    kv_out = [t for t in named(graph, "kv") if "kv_out" in t.name]
    cached = 10 if window is None else 5
    assert traffic(kv_in) == 3 * sequences * cached * 12
    assert traffic(kv_out) == 3 * sequences * (2 + 1) * 12
    assert len(kv_in) == len(kv_out) == 3 * micro * BATCHES[strategy]


@pytest.mark.parametrize(("rows", "micro", "reads"), [(4, 4, 1), (4, 2, 2), (4, 3, 2), (5, 1, 5)])
def test_a_draft_is_read_once_per_step_and_micro_batch(rows: int, micro: int, reads: int) -> None:
    case = stories.case(draft=stories.model())
    layers = stories.layers(case.target)
    decision = stories.decision("serial", layers, batch=rows, gamma=3, draft=stories.on_gpu("vram", micro))
    steps = named(rounds(case, decision, rows=rows, context=10), "draft")
    assert len(steps) == 3 * reads
    for step in range(3):
        shape = decode_shape(rows / reads, 1, 10 + step)
        of_step = [task.work for task in steps if f"/S{step:02d}/" in task.name]
        assert of_step == [cost.whole_pass(stories.model(), shape)] * reads


def test_a_streamed_draft_cache_moves_in_and_out_once_per_round() -> None:
    case = stories.case(draft=stories.model(layers=3))
    layers = stories.layers(case.target)
    decision = stories.decision("serial", layers, batch=4, gamma=2, draft=stories.on_gpu("ram", 2))
    caches = named(rounds(case, decision, rows=4, context=10), "kv")
    assert [(t.name, t.stream, traffic([t])) for t in caches] == [
        ("draft.0/A/draft/kv_in#0", "h2d.kv", 3 * 2 * 10 * 12),
        ("draft.0/A/draft/kv_out#0", "d2h", 3 * 2 * 2 * 12),
        ("draft.0/A/draft/kv_in#1", "h2d.kv", 3 * 2 * 10 * 12),
        ("draft.0/A/draft/kv_out#1", "d2h", 3 * 2 * 2 * 12),
    ]


def test_a_draft_without_a_cache_starts_from_the_whole_context() -> None:
    case = stories.case(draft=stories.model())
    decision = stories.decision(
        "serial", stories.layers(case.target), batch=2, gamma=2, draft=stories.on_gpu("none", 2)
    )
    first, second = named(rounds(case, decision, rows=2, context=10), "draft")
    again = prefill_shape([11, 11])
    assert first.work == cost.whole_pass(stories.model(), again)
    assert second.work == cost.whole_pass(stories.model(), decode_shape(2, 1, 11))


def test_newcomers_bring_their_prompts_to_both_models() -> None:
    case = stories.case(draft=stories.model())
    decision = stories.decision(
        "serial", stories.layers(case.target), batch=2, gamma=1, draft=stories.on_gpu("vram", 2)
    )
    alone, joined = (lower_rounds(case, decision, RoundShape(2, 9, joining), 1) for joining in (0, 6))

    def flops(graph: Graph, kind: str) -> float:
        return sum(work.flops for task in named(graph, kind) for work in task.work)

    # six tokens more: two layers of 6 T h f; attention over (9 + 1) / 2 positions each on average
    assert flops(joined, "ffn") - flops(alone, "ffn") == 2 * 6 * 6 * 4 * 8
    projections, core = 2 * 6 * 4 * 3 * 6, 4 * 2 * 3 * 6 * (9 + 1) / 2
    assert flops(joined, "attention") - flops(alone, "attention") == 2 * (projections + core)
    assert flops(joined, "draft") - flops(alone, "draft") == 2 * (projections + core + 6 * 6 * 4 * 8)


# rings


def test_a_ring_hands_its_slots_on_in_turn() -> None:
    ring = Ring("ring", 2)
    assert ring.free() == ()
    ring.used_by([1])
    assert ring.free() == ()
    ring.used_by([2, 3])
    assert ring.free() == (1,)
    ring.used_by([4])
    assert ring.free() == (2, 3)


def test_loads_run_ahead_over_the_end_of_a_round() -> None:
    decision = stories.decision("serial", stories.layers(EVEN, weights="pinned"))
    rows = stories.log(rounds(exact_case(), decision, count=2), exact_case().machine, "verify.1")
    assert rows[:4] == [
        (29, 35, "verify.1/A/L00/load_attention"),  # the last round's second attention is over, its head is not
        (35, 42, "verify.1/A/L00/load_ffn.0"),
        (37, 39, "verify.1/A/embed/lookup"),  # shares the link for 2 s
        (39, 47, "verify.1/A/L00/attention"),
    ]


def test_loads_run_ahead_while_drafting() -> None:
    decision = stories.decision("serial", stories.layers(EVEN, weights="pinned"), gamma=2, draft=stories.on_gpu())
    case = exact_case()
    assert stories.log(rounds(case, decision), case.machine)[:8] == [
        (0, 6, "verify.0/A/L00/load_attention"),
        (0, 16, "draft.0/A/S00/forward"),
        (6, 12, "verify.0/A/L00/load_ffn.0"),
        (16, 32, "draft.0/A/S01/forward"),
        (32, 35, "verify.0/A/embed/lookup"),
        (35, 43, "verify.0/A/L00/attention"),
        (43, 47, "verify.0/A/L00/ffn.0"),
        (43, 49, "verify.0/A/L01/load_attention"),
    ]


# strategies


def spans(case: Case, decision: Decision, *prefixes: str, rows: float = 2, count: int = 1) -> dict[str, Any]:
    """First start and last end of all tasks under each prefix."""
    graph = rounds(case, decision, rows=rows, count=count)
    found = {}
    for prefix in prefixes:
        tasks = stories.log(graph, case.machine, prefix)
        found[prefix] = (min(start for start, _, _ in tasks), max(end for _, end, _ in tasks))
    return found


def test_serial_drafts_then_verifies() -> None:
    case = exact_case()
    decision = stories.decision("serial", stories.layers(EVEN), gamma=1, draft=stories.on_gpu())
    assert stories.log(rounds(case, decision), case.machine) == [
        (0, 16, "draft.0/A/S00/forward"),
        (16, 18, "verify.0/A/embed/lookup"),
        (18, 26, "verify.0/A/L00/attention"),
        (26, 30, "verify.0/A/L00/ffn.0"),
        (30, 38, "verify.0/A/L01/attention"),
        (38, 42, "verify.0/A/L01/ffn.0"),
        (42, 46, "verify.0/A/head/logits"),
    ]


def test_merged_verifies_both_batches_in_one_pass() -> None:
    case = exact_case()
    decision = stories.decision("merged", stories.layers(EVEN, weights="pinned"), gamma=1, draft=stories.on_gpu())
    graph = rounds(case, decision, rows=2)
    assert stories.log(graph, case.machine, "draft", "verify.0/A/", "verify.0/B/") == [
        (0, 16, "draft.0/A/S00/forward"),
        (16, 18, "verify.0/A/embed/lookup"),
        (16, 40, "draft.0/B/S00/forward"),  # shares the GPU with A's first attention until 34
        (18, 34, "verify.0/A/L00/attention"),
        (40, 42, "verify.0/B/embed/lookup"),
        (42, 50, "verify.0/B/L00/attention"),
        (50, 54, "verify.0/A/L00/ffn.0"),
        (54, 58, "verify.0/B/L00/ffn.0"),
        (58, 66, "verify.0/A/L01/attention"),
        (66, 74, "verify.0/B/L01/attention"),
        (74, 78, "verify.0/A/L01/ffn.0"),
        (78, 82, "verify.0/B/L01/ffn.0"),
        (82, 86, "verify.0/A/head/logits"),
        (86, 90, "verify.0/B/head/logits"),
    ]
    assert Counter(task.name.split("/")[1] for task in graph.tasks if task.kind == "load") == {"AB": 4}


def test_interleaved_drafts_for_one_batch_while_verifying_the_other() -> None:
    """With the draft on the CPU nothing is shared: a slot takes as long as its verify pass."""
    case = exact_case()
    decision = stories.decision("interleaved", stories.layers(EVEN), gamma=1, draft=stories.on_cpu())
    found = spans(
        case, decision, *("draft.0/A", "verify.0/A", "draft.0/B", "draft.1/A", "verify.0/B", "draft.1/B"), count=2
    )
    assert found == {
        "draft.0/A": (0, 16),
        "draft.0/B": (16, 32),
        "verify.0/A": (16, 46),  # embedding 2, layers 24, head 4
        "verify.0/B": (32, 74),  # its embedding is early, its layers start when A's pass has left the GPU
        "draft.1/A": (46, 62),
        "draft.1/B": (74, 90),
    }


def test_interleaved_kernels_share_the_gpu() -> None:
    """Drafting and verifying on one GPU, each at half speed: B's draft has 14 s left at 18, so it ends at 46; A's pass
    has by then done 14 of its 28 s, and ends at 60."""
    case = exact_case()
    decision = stories.decision("interleaved", stories.layers(EVEN), gamma=1, draft=stories.on_gpu())
    assert spans(case, decision, "draft.0/B", "verify.0/A") == {"draft.0/B": (16, 46), "verify.0/A": (16, 60)}


def test_merged_overlaps_the_cpu_attention_of_one_batch_with_the_gpu_work_of_the_other() -> None:
    case = exact_case(stories.even(layers=1))
    decision = stories.decision("merged", stories.layers(stories.even(layers=1), "cpu"))
    rows = stories.log(rounds(case, decision, rows=2), case.machine)
    assert [(start, end, name[9:]) for start, end, name in rows if "embed" not in name] == [
        (1, 5, "A/L00/qkv"),
        (5, 6.5, "A/L00/qkv_out"),
        (5, 9, "B/L00/qkv"),
        (6.5, 10.5, "A/L00/attention"),
        (9, 10.5, "B/L00/qkv_out"),
        (10.5, 11, "A/L00/heads_in"),
        (10.5, 14.5, "B/L00/attention"),
        (11, 15, "A/L00/output"),
        (14.5, 15, "B/L00/heads_in"),
        (15, 19, "B/L00/output"),
        (19, 23, "A/L00/ffn.0"),
        (23, 27, "B/L00/ffn.0"),
        (27, 31, "A/head/logits"),
        (31, 35, "B/head/logits"),
    ]


# prefill and transition


def test_prefill_sweeps_over_the_layers_and_then_fills_the_draft_cache() -> None:
    case = replace(exact_case(), workload=stories.workload(prompt=6))
    decision = stories.decision(
        "serial",
        stories.layers(EVEN, weights="pinned"),
        batch=3,
        prefill_batch=2,
        gamma=1,
        draft=stories.on_gpu("vram", 3),
    )
    graph = lower_prefill(case, decision, [4, 5, 6])
    assert traffic(named(graph, "load")) == 2 * 4 * 24  # two sweeps
    assert [traffic([task]) for task in named(graph, "embed")] == [9 * 4, 6 * 4]
    heads, draft = named(graph, "head"), named(graph, "draft")
    assert [task.name for task in heads] == ["prefill.0/A/head/logits", "prefill.1/A/head/logits"]
    assert [task.name for task in draft] == ["transition.0/A/draft/prefill"]
    assert draft[0].work == cost.whole_pass(DRAFT, prefill_shape([4, 5, 6]))
    assert [[graph.tasks[i].name for i in ends] for ends in graph.round_ends] == [
        ["prefill.1/A/head/logits"],
        ["transition.0/A/draft/prefill"],
    ]


def moved(case: Case, draft: DraftPolicy) -> list[tuple[str, str, float]]:
    graph = lower_transition(case, 1, draft, [4, 4])
    return [
        (task.name.removeprefix("transition.0/A/draft/"), task.stream, traffic([task]))
        for task in graph.tasks
        if task.kind != "draft"
    ]


def test_a_draft_that_waited_is_loaded_from_where_it_lies() -> None:
    full, bare, size = exact_case(), exact_case(bare=True), float(DRAFT.weight_bytes)
    assert moved(full, stories.on_gpu("vram", 2, waits=True)) == [("load", "h2d", size)]
    assert moved(full, stories.on_cpu("ram", 2, waits=True)) == [("load", "disk", size)]
    assert moved(bare, stories.on_cpu("ram", 2, waits=True)) == [("load", "disk", size)]
    assert moved(full, stories.on_gpu("none", 2)) == []


def test_a_draft_cache_in_ram_is_written_there_micro_batch_by_micro_batch() -> None:
    assert moved(exact_case(), stories.on_gpu("ram", 1)) == [("kv_out#0", "d2h", 4 * 4), ("kv_out#1", "d2h", 4 * 4)]
    assert moved(exact_case(), stories.on_cpu("ram", 1)) == []


def test_plain_decoding_has_no_transition() -> None:
    case = exact_case()
    decision = stories.decision("serial", stories.layers(EVEN), draft=stories.on_gpu())
    graph = lower_prefill(case, decision, [4])
    assert graph.round_ends[0] == graph.round_ends[1]
    assert named(rounds(case, decision), "draft") == []


def test_few_sequences_are_placed_by_the_tail() -> None:
    tail = stories.layers(EVEN, "cpu+projections", "pinned", cpu_parts=1)
    usual = stories.layers(EVEN, weights="pinned", kv="ram")
    plan = stories.decision("serial", usual, batch=8)
    plan = Decision(plan.strategy, plan.policy, plan.layers, (Tail(4, tail),))
    loads = {rows: len(named(rounds(exact_case(), plan, rows=rows), "load")) for rows in (8, 5, 4, 1)}
    assert loads == {8: 4, 5: 4, 4: 0, 1: 0}
