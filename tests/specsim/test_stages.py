"""Rounds and prefills over several devices, as exact event logs.

Sizes are those of `stories.even` (a unit 24 bytes, hidden state and K and V of a layer 4 bytes a token); links move 4
bytes a second and a kernel takes 4 s, so a layer of three takes 12 s, sending a
token's rows 1 s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specsim.case import Case
from specsim.cost.timing import demand
from specsim.cost.work import all_reduce, copy, send
from specsim.decision import Decision
from specsim.hardware import Machine, Peer
from specsim.model import FeedForward, Model
from specsim.planner.predict import round_timeline
from specsim.positions import ARRIVING, sweeps_at_once
from specsim.schedule.graph import TASK_NAME, parse
from specsim.schedule.lower import lower_prefill, lower_rounds
from specsim.schedule.round import RoundShape
from specsim.simulator.job import RoundPricer
from specsim.simulator.pricing import simulate
from specsim.stages import layout, stages
from specsim.timeline import critical_path, streams
from specsim.timeline.timeline import Span, busy_seconds
from tests.specsim import stories

EVEN, DRAFT = stories.even(), stories.even(layers=1)


def machine(devices: int, node: int | None = None, **options: Any) -> Machine:
    kernel = stories.processor(overhead=4)
    one = stories.machine(gpu=kernel, cpu=kernel, **options)
    return replace(one, devices=devices, node_devices=node or devices, peer=Peer(4.0, 0.0))


def decision(strategy: str, target: Model = EVEN, **numbers: Any) -> Decision:
    placed = stories.layers(target, numbers.pop("attention", "gpu"), numbers.pop("weights", "vram"))
    return stories.decision(strategy, placed, **numbers)


def log(case: Case, how: Decision, rows: float) -> list[tuple[float, float, str]]:
    return stories.log(lower_rounds(case, how, RoundShape(rows, 4), 1), case.machine)


def test_two_stages_work_on_two_batches_at_the_same_time() -> None:
    how = decision("interleaved", stages=2)
    assert log(stories.case(machine(2), EVEN), how, 2) == [
        (0, 1, "verify.0/A/embed/lookup"),
        (1, 2, "verify.0/B/embed/lookup"),
        (1, 9, "verify.0/A/L00/attention"),
        (9, 13, "verify.0/A/L00/ffn.0"),
        (13, 14, "verify.0/A/L00/send"),
        (13, 21, "verify.0/B/L00/attention"),
        (14, 22, "verify.0/A/L01/attention"),
        (21, 25, "verify.0/B/L00/ffn.0"),
        (22, 26, "verify.0/A/L01/ffn.0"),
        (25, 26, "verify.0/B/L00/send"),
        (26, 27, "verify.0/A/L01/send"),
        (26, 34, "verify.0/B/L01/attention"),
        (27, 31, "verify.0/A/head/logits"),
        (34, 38, "verify.0/B/L01/ffn.0"),
        (38, 39, "verify.0/B/L01/send"),
        (39, 43, "verify.0/B/head/logits"),
    ]


def test_one_batch_goes_from_stage_to_stage_and_home() -> None:
    how = decision("serial", stages=2)
    assert log(stories.case(machine(2), EVEN), how, 1) == [
        (0, 1, "verify.0/A/embed/lookup"),
        (1, 9, "verify.0/A/L00/attention"),
        (9, 13, "verify.0/A/L00/ffn.0"),
        (13, 14, "verify.0/A/L00/send"),
        (14, 22, "verify.0/A/L01/attention"),
        (22, 26, "verify.0/A/L01/ffn.0"),
        (26, 27, "verify.0/A/L01/send"),
        (27, 31, "verify.0/A/head/logits"),
    ]


def test_every_stage_has_a_link_of_its_own() -> None:
    """Both load their layers from RAM at once, 6 s a unit; the first one's also brings the embedding, 1 s."""
    how = decision("serial", weights="pinned", stages=2)
    rows = [row for row in log(stories.case(machine(2), EVEN), how, 1) if "load" in row[2]]
    assert rows == [
        (0, 6, "verify.0/A/L01/load_attention"),
        (0, 7, "verify.0/A/L00/load_attention"),
        (6, 12, "verify.0/A/L01/load_ffn.0"),
        (7, 13, "verify.0/A/L00/load_ffn.0"),
    ]


def test_a_third_batch_is_drafted_for_while_two_are_verified() -> None:
    case = stories.case(machine(2), EVEN, draft=DRAFT)
    how = decision("interleaved", stages=2, batches=3, gamma=1, draft=stories.on_gpu())
    graph = lower_rounds(case, how, RoundShape(3, 4), 2)
    order = [parse(t.name) for t in graph.tasks if t.kind in ("draft", "head")]
    words = " ".join(f"{n.phase[0]}{n.batch}{n.round}" for n in order)
    assert words == "dA0 dB0 dC0 vA0 dA1 vB0 dB1 vC0 dC1 vA1 dA2 vB1 dB2 vC1"


def test_a_round_of_a_pipeline_is_read_off_while_it_is_full() -> None:
    """Four stages take 12 s for each of four batches, the first one 4 s more for its logits: it has something to do all
    the time but while a batch's logits wait for its rows. Of two rounds the second would be one that drains."""
    target = stories.even(layers=4)
    case, shape = stories.case(machine(4), target), RoundShape(4, 4)
    how = decision("interleaved", target, stages=4, batches=4)
    assert RoundPricer(case, how).steady(shape) == 66
    timeline = round_timeline(case, how, shape)
    assert timeline.makespan == 66
    busy = busy_seconds(timeline)
    assert [busy[gpu] for gpu in ("gpu", "gpu@1", "gpu@2", "gpu@3")] == [65, 48, 49, 49]


def test_the_sweeps_of_a_prefill_follow_one_another_over_the_stages() -> None:
    case = stories.case(machine(2), EVEN)
    graph = lower_prefill(case, decision("serial", stages=2, prefill_batch=1), [1, 1])
    rows = stories.log(graph, case.machine, "prefill.0/A/L01/attention", "prefill.1/A/L0")
    assert rows[:3] == [
        (13, 21, "prefill.1/A/L00/attention"),
        (14, 22, "prefill.0/A/L01/attention"),
        (21, 25, "prefill.1/A/L00/ffn.0"),
    ]


def test_no_stage_has_more_sweeps_of_a_prefill_than_memory_counts() -> None:
    """The second stage has three of four layers, 36 s and a second to send. A sweep is sent to it when the last but one
    has left it, and the first stage begins one when the third before has come home: its head takes 4 s."""
    target = stories.even(layers=4)
    case, how = stories.case(machine(2), target), decision("serial", target, stages=2, prefill_batch=1)
    assert (sweeps_at_once(how.policy), ARRIVING) == (3, 2)
    ran = {span.name: span for span in simulate(lower_prefill(case, how, [1] * 6), case.machine).spans}

    def of(task: str) -> list[Span]:
        return [ran[f"prefill.{sweep}/A/{task}"] for sweep in range(6)]

    assert [span.end for span in of("L03/ffn.0")] == [50, 86, 122, 158, 194, 230]
    assert [span.start for span in of("L00/send")] == [13, 25, 51, 87, 123, 159]
    assert [span.start for span in of("embed/lookup")] == [0, 1, 2, 55, 91, 127]
    assert [span.end for span in of("head/logits")] == [55, 91, 127, 163, 199, 235]


def test_devices_of_a_tensor_split_add_up_after_attention_and_after_the_ffn() -> None:
    target = stories.even(heads=2, kv_heads=2, ffn=FeedForward(4))
    how = decision("serial", target, tensor=2)
    assert log(stories.case(machine(2), target), how, 1) == [
        (0, 1, "verify.0/A/embed/lookup"),
        (1, 9, "verify.0/A/L00/attention"),
        (9, 10, "verify.0/A/L00/attention_reduce"),
        (10, 14, "verify.0/A/L00/ffn.0"),
        (14, 15, "verify.0/A/L00/ffn_reduce"),
        (15, 23, "verify.0/A/L01/attention"),
        (23, 24, "verify.0/A/L01/attention_reduce"),
        (24, 28, "verify.0/A/L01/ffn.0"),
        (28, 29, "verify.0/A/L01/ffn_reduce"),
        (29, 33, "verify.0/A/head/logits"),
    ]


def test_an_all_reduce_moves_what_a_ring_moves() -> None:
    work = all_reduce(80.0, 4)
    assert (work.bytes, work.calls) == (120.0, 6.0)  # 2 * 3/4 of it, in 2 * 3 transfers


def test_devices_of_a_tensor_split_share_what_their_host_has() -> None:
    """Each loads half of every unit, 6 s over its own link; but DRAM gives 4 bytes a second to both together."""
    target = stories.even(heads=2, kv_heads=2, ffn=FeedForward(4))
    how = decision("serial", target, tensor=2, weights="pinned")

    def last_load(on: Machine) -> float:
        graph = lower_rounds(stories.case(on, target), how, RoundShape(1, 4), 1)
        ((start, end, _),) = stories.log(graph, on, "verify.0/A/L01/load_ffn")
        return end - start

    own = machine(2)
    assert last_load(own) == 6
    narrow = replace(own, host=replace(own.host, processor=stories.processor(bandwidth=4.0, overhead=4)))
    assert last_load(narrow) == 12


@pytest.mark.parametrize(("stream", "pools"), [("gpu@3", {"gpu@3", "vram_bw@3"}), ("disk@3", {"disk@2", "dram@2"})])
def test_pools_are_a_devices_own_or_its_nodes(stream: str, pools: set[str]) -> None:
    on = replace(machine(4, node=2), host=replace(machine(1).host, processor=stories.processor(bandwidth=64.0)))
    assert {pool for pool, _ in demand(on, stream, (copy(8.0),), 2.0)} == pools


def test_ranks_on_fewer_cores_than_they_have_threads_share_them() -> None:
    """Four CPUs of one core each on two cores: four that compute at once take twice as long."""
    one = stories.machine(cpu=stories.processor(overhead=4), bare=True)
    host = replace(one.host, cores=1)
    ranks = replace(one, host=host, devices=4, node_devices=4, node_cores=2, peer=Peer(4.0, 0.0))
    assert dict(demand(ranks, "cpu@3", (copy(1.0),), 4.0)) == {"cpu@3": 1.0, "dram": pytest.approx(0), "cores": 0.5}


def test_what_leads_from_node_to_node_takes_the_network() -> None:
    target = stories.even(layers=4)
    on = replace(machine(4, node=2), network=Peer(1.0, 0.0))
    case = stories.case(on, target)
    how = decision("serial", target, stages=4)
    assert layout(case, how.policy).far == (False, True, False, True)
    sends = {name: end - start for start, end, name in log(case, how, 1) if name.endswith("send")}
    assert [sends[f"verify.0/A/L0{layer}/send"] for layer in range(4)] == [1, 4, 1, 4]
    assert send(4.0, far=True).far


def test_a_stage_is_a_case_of_its_own_and_only_the_first_has_the_draft() -> None:
    case = stories.case(machine(2, ram=100.0), EVEN, draft=DRAFT)
    first, second = stages(case, decision("serial", stages=2).policy)
    assert (first.first, second.first) == (True, False)
    assert (first.case.target.layers, second.case.target.layers) == (1, 1)
    assert (first.case.draft, second.case.draft) == (DRAFT, None)
    assert first.case.machine.ram_budget_bytes == 50.0
    assert stages(case, decision("serial").policy)[0].case is case


@pytest.mark.parametrize("strategy", ["serial", "merged", "interleaved"])
@pytest.mark.parametrize("attention", ["gpu", "cpu", "cpu+projections"])
@pytest.mark.parametrize("weights", ["pinned", "disk"])
@pytest.mark.parametrize(("count", "tensor"), [(2, 1), (3, 1), (1, 2), (2, 2)])
def test_every_graph_is_well_named_and_between_its_bounds(
    strategy: str, attention: str, weights: str, count: int, tensor: int
) -> None:
    if attention == "cpu+projections" and weights == "disk":
        return
    target = stories.even(layers=4, heads=2, kv_heads=2, ffn=FeedForward(4))
    case = stories.case(machine(6), target, draft=stories.even(layers=1))
    numbers: dict[str, Any] = {"stages": count, "tensor": tensor, "gamma": 1, "draft": stories.on_gpu()}
    if strategy == "interleaved" and count > 1:
        numbers["batches"] = count + 1
    how = decision(strategy, target, attention=attention, weights=weights, **numbers)
    graph = lower_rounds(case, how, RoundShape(how.policy.in_flight, 4), 2)
    names = [task.name for task in graph.tasks]
    assert len(set(names)) == len(names)
    assert all(TASK_NAME.fullmatch(name) for name in names)
    assert all(-1 < dep < i for i, task in enumerate(graph.tasks) for dep in task.deps)
    timeline = simulate(graph, case.machine)
    path = sum(timeline.spans[i].seconds for i in critical_path(timeline))
    assert path <= timeline.makespan * (1 + 1e-9)
    assert timeline.makespan <= sum(span.seconds for span in timeline.spans)
    assert {f"gpu@{stage * tensor}" for stage in range(1, count)} <= set(streams(timeline))
