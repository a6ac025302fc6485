"""Prefills and rounds appended to one graph, wave after wave: nothing repeats, and no buffer is filled while in use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from specsim.case import Case
from specsim.decision import BATCHES, Decision, Tail
from specsim.planner.options import draft_policies
from specsim.schedule.graph import TASK_NAME, Graph, Slot, parse
from specsim.schedule.lower import NEXT_WAVE, STRATEGIES, append_prefill, append_round, builder
from specsim.schedule.round import RoundLowering, RoundShape, RoundState
from tests.specsim import stories
from tests.specsim.variants import ALL, variants

LENGTHS = [4.0, 7.0, 5.0]
ROUNDS = 3


def two_waves(case: Case, decision: Decision) -> Graph:
    """Twice a prefill and three rounds of as many sequences as are in flight."""
    case = replace(case, workload=stories.workload(prompt=int(max(LENGTHS))))
    b = builder(decision)
    ends: tuple[int, ...] = ()
    sweep = number = 0
    for _ in range(2):
        ends = append_prefill(b, case, decision, LENGTHS, ends, sweep)
        sweep += -(-len(LENGTHS) // decision.policy.prefill_batch)
        state = RoundState.after(ends, decision)
        for _ in range(ROUNDS):
            append_round(b, case, decision, RoundShape(float(decision.policy.in_flight), 10.0), number, state)
            number += 1
        number += NEXT_WAVE - 1
        ends = b.round_ends[-1]
    return b.graph()


def users(graph: Graph) -> Iterator[tuple[Slot, int, list[int]]]:
    """Each filled slot, in order: the task that fills it and those that use what is in it, found by their names."""
    tasks = [(i, task, parse(task.name)) for i, task in enumerate(graph.tasks)]
    for i, task, n in tasks:
        if task.slot is None:
            continue
        if task.slot[0] in ("kv_ring", "draft_ring"):
            after = [(j, m) for j, _, m in tasks if (m.phase, m.round, m.batch) == (n.phase, n.round, n.batch)]
            yield task.slot, i, [j for j, m in after if (m.site, m.op, m.micro) == (n.site, "kv_out", n.micro)]
            continue
        way, _, unit = n.op.partition("_")
        here = [(j, t, m) for j, t, m in tasks if (m.phase, m.round, m.site) == (n.phase, n.round, n.site)]
        loaded = [j for j, _, m in here if (m.batch, m.op, m.part) == (n.batch, f"load_{unit}", n.part)]
        if way == "read" and loaded:
            yield task.slot, i, loaded
        else:
            yield task.slot, i, [j for j, t, m in here if m.batch in n.batch and (t.kind, m.part) == (unit, n.part)]


def ancestors(graph: Graph) -> list[int]:
    """By task, as bits: the tasks that have ended before it starts, whatever anything takes."""
    before: list[int] = []
    last: dict[str, int] = {}
    for i, task in enumerate(graph.tasks):
        direct = (*task.deps, last[task.stream]) if task.stream in last else task.deps
        bits = 0
        for j in direct:
            bits |= before[j] | 1 << j
        before.append(bits)
        last[task.stream] = i
    return before


@pytest.mark.parametrize(("strategy", "bare", "placed"), ALL)
def test_waves_never_repeat_a_name_and_never_fill_a_buffer_in_use(
    strategy: str, bare: bool, placed: dict[str, Any]
) -> None:
    for case, decision in variants(strategy, bare, placed):
        graph = two_waves(case, decision)
        names = [task.name for task in graph.tasks]
        assert len(set(names)) == len(names)
        assert [name for name in names if not TASK_NAME.fullmatch(name)] == []
        assert all(-1 < dep < i for i, task in enumerate(graph.tasks) for dep in task.deps)
        assert len(graph.round_ends) == 2 * (2 + ROUNDS)
        before = ancestors(graph)
        held: dict[Slot, list[int]] = {}
        order: dict[str, list[int]] = defaultdict(list)
        for slot, filler, using in users(graph):
            assert using, names[filler]
            assert all(before[filler] >> user & 1 for user in held.get(slot, ())), names[filler]
            assert all(before[user] >> filler & 1 or user == filler for user in using), names[filler]
            held[slot] = using
            order[slot[0]].append(slot[1])
        for numbers in order.values():
            slots = max(numbers) + 1
            assert numbers == [i % slots for i in range(len(numbers))]


@pytest.mark.parametrize(("strategy", "bare", "placed"), ALL)
def test_whatever_fills_a_buffer_says_which(strategy: str, bare: bool, placed: dict[str, Any]) -> None:
    for case, decision in variants(strategy, bare, placed):
        for task in two_waves(case, decision).tasks:
            name = parse(task.name)
            if task.kind in ("load", "read"):
                assert (task.slot is None) == (name.phase == "transition")  # the draft's weights have no ring
            elif name.op == "kv_in":
                assert task.slot is not None
            elif task.slot is not None:  # a prompt's cache is made in its buffer
                assert (name.phase, name.op) in {("prefill", "attention"), ("transition", "prefill")}


def test_slots_of_a_pass_name_by_name() -> None:
    case = stories.case(target=stories.even())
    layers = stories.layers(stories.even(), weights="disk", kv="ram")
    b = builder(decision := stories.decision("serial", layers))
    append_prefill(b, case, decision, [4.0], ())
    append_round(b, case, decision, RoundShape(1.0, 4.0), 0, RoundState({}, {}))
    filled = [(task.name, task.slot) for task in b.tasks if task.slot is not None]
    assert filled[:6] == [
        ("prefill.0/A/L00/read_attention", ("disk_ring", 0)),
        ("prefill.0/A/L00/load_attention", ("ring", 0)),
        ("prefill.0/A/L00/attention", ("kv_ring", 0)),
        ("prefill.0/A/L00/read_ffn.0", ("disk_ring", 1)),
        ("prefill.0/A/L00/load_ffn.0", ("ring", 1)),
        ("prefill.0/A/L01/read_attention", ("disk_ring", 0)),
    ]
    assert filled[12] == ("verify.0/A/L00/kv_in", ("kv_ring", 0))


def test_a_draft_cache_that_nothing_else_displaces_has_one_buffer() -> None:
    case = stories.case(draft=stories.model(layers=1))
    layers = stories.layers(case.target)
    for strategy, slots in (("serial", {0}), ("merged", {0, 1})):
        decision = stories.decision(strategy, layers, gamma=2, draft=stories.on_gpu("ram"))
        graph = two_waves(case, decision)
        assert {task.slot[1] for task in graph.tasks if task.slot and task.slot[0] == "draft_ring"} == slots


def test_loads_run_ahead_into_the_next_wave() -> None:
    case = stories.case(target=stories.even())
    decision = stories.decision("serial", stories.layers(stories.even(), weights="pinned"), batch=3)
    graph = two_waves(case, decision)
    names = [task.name for task in graph.tasks]
    waits = {task.name: [names[i] for i in task.deps] for task in graph.tasks}
    assert waits["prefill.1/A/L00/load_attention"] == ["verify.2/A/L01/attention"]
    assert waits["prefill.1/A/embed/lookup"] == ["verify.2/A/head/logits"]
    assert waits["verify.4/A/embed/lookup"] == ["prefill.1/A/head/logits"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_wave_waits_for_the_prefill_of_its_prompts(strategy: str) -> None:
    case = stories.case(draft=stories.model(layers=1))
    decision = stories.decision(strategy, stories.layers(case.target), batch=2, gamma=1, draft=stories.on_gpu())
    graph = two_waves(case, decision)
    names = [task.name for task in graph.tasks]
    for batch in "AB"[: BATCHES[strategy]]:
        first = graph.tasks[names.index(f"draft.4/{batch}/S00/forward#0")]
        assert {parse(names[i]).phase for i in first.deps} == {"transition"}


def test_a_round_says_which_placement_it_was_lowered_with() -> None:
    usual, tail = (stories.layers(stories.even(), weights=home) for home in ("pinned", "vram"))
    plain = stories.decision("serial", usual, batch=8)
    decision = Decision(plain.strategy, plain.policy, plain.layers, (Tail(4, tail),))
    case, b = stories.case(target=stories.even()), builder(plain)
    lowered: list[RoundLowering] = [
        append_round(b, case, decision, RoundShape(rows, 4.0, joining), number, RoundState({}, {}))
        for number, (rows, joining) in enumerate([(8.0, 0.0), (4.0, 0.0), (4.0, 6.0)])
    ]
    assert [low.layers() for low in lowered] == [usual, tail, usual]
    loads = [sum(task.kind == "load" and f".{n}/" in task.name for task in b.tasks) for n in range(3)]
    assert loads == [4, 0, 4]


def test_a_draft_waits_for_room_only_where_there_is_one_prefill() -> None:
    """Once loaded it stays, and the next wave's prefill would find its room taken."""
    case = stories.case(work=stories.workload(requests=8), draft=stories.model(name="draft"))

    def waits(batch: int, refill: bool) -> bool:
        policy = stories.decision("serial", (), gamma=2, batch=batch, refill=refill).policy
        return any(draft.waits for draft in draft_policies(case, policy))

    assert [waits(8, False), waits(4, True), waits(4, False)] == [True, True, False]
