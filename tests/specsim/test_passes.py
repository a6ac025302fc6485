"""One pass over the layers, as exact event logs.

`stories.even`: units of 24 bytes, hidden states and K and V of a layer 4 bytes per token. Link and disk move 4 bytes a
second, so that a unit takes 6 s and a token 1 s; every kernel takes 4 s, so that attention (projections and core) takes
8, an FFN 4 and the head 4.
"""

from __future__ import annotations

import pytest

from specsim.cost.shapes import PassShape, decode_shape, prefill_shape
from specsim.decision import LayerPlacement
from specsim.hardware import Machine
from specsim.model import FeedForward, Model
from specsim.partition import PART_BYTES, layer_units
from specsim.schedule.graph import Builder, Graph
from specsim.schedule.passes import PassPlan, lower_pass, on_main
from tests.specsim import stories

ONE = stories.even(layers=1)
TWO = stories.even()


def machine(*, bare: bool = False, overhead: float = 4.0) -> Machine:
    kernels = stories.processor(overhead=overhead)
    return stories.machine(gpu=kernels, cpu=kernels, bare=bare)


def lowered(
    model: Model,
    layers: tuple[LayerPlacement, ...],
    shape: PassShape | None = None,
    *,
    batches: str = "A",
    micro: int = 1,
    slots: int = 2,
    main: str = "gpu",
    phase: str = "verify",
    routed: bool = False,
) -> Graph:
    """One pass of `batches`, each of a token after none."""
    b = Builder(slots)
    plan = PassPlan(model, layers, main, phase, 0, micro, PART_BYTES, routed)
    shapes = dict.fromkeys(batches, shape or decode_shape(1, 1, 0))
    lower_pass(b, plan, shapes, dict.fromkeys(batches, ()))
    return b.graph()


def log(graph: Graph, *, bare: bool = False, overhead: float = 4.0) -> list[tuple[float, float, str]]:
    """Without the phase, the round and the batch."""
    rows = stories.log(graph, machine(bare=bare, overhead=overhead))
    return [(start, end, name.removeprefix("verify.0/").removeprefix("A/")) for start, end, name in rows]


# where attention runs


def test_everything_in_vram() -> None:
    assert log(lowered(TWO, stories.layers(TWO))) == [
        (0, 1, "embed/lookup"),
        (1, 9, "L00/attention"),
        (9, 13, "L00/ffn.0"),
        (13, 21, "L01/attention"),
        (21, 25, "L01/ffn.0"),
        (25, 29, "head/logits"),
    ]


def test_without_a_gpu_everything_is_on_the_cpu() -> None:
    assert log(lowered(ONE, stories.layers(ONE, "bare", "ram"), main="cpu"), bare=True) == [
        (0, 4, "embed/lookup"),
        (4, 12, "L00/attention"),
        (12, 16, "L00/ffn.0"),
        (16, 20, "head/logits"),
    ]


def test_the_attention_core_on_the_cpu() -> None:
    # Q, K and V: three elements of 2 bytes down; one head's output up
    assert log(lowered(ONE, stories.layers(ONE, "cpu"))) == [
        (0, 1, "embed/lookup"),
        (1, 5, "L00/qkv"),
        (5, 6.5, "L00/qkv_out"),
        (6.5, 10.5, "L00/attention"),
        (10.5, 11, "L00/heads_in"),
        (11, 15, "L00/output"),
        (15, 19, "L00/ffn.0"),
        (19, 23, "head/logits"),
    ]


def test_projections_on_the_cpu_too() -> None:
    # the hidden state travels, the weights stay: nothing is loaded
    layers = stories.layers(ONE, "cpu+projections", "pinned", ffn="vram")
    assert log(lowered(ONE, layers)) == [
        (0, 1, "embed/lookup"),
        (1, 2, "L00/hidden_out"),
        (2, 10, "L00/attention"),
        (10, 11, "L00/hidden_in"),
        (11, 15, "L00/ffn.0"),
        (15, 19, "head/logits"),
    ]


def test_a_cache_in_ram_visits_vram() -> None:
    # five cached positions come in once the pass has begun, the new one goes back
    graph = lowered(TWO, stories.layers(TWO, kv="ram"), decode_shape(1, 1, 5))
    assert log(graph) == [
        (0, 1, "embed/lookup"),
        (1, 6, "L00/kv_in"),
        (6, 11, "L01/kv_in"),
        (6, 14, "L00/attention"),
        (14, 15, "L00/kv_out"),
        (14, 18, "L00/ffn.0"),
        (18, 26, "L01/attention"),
        (26, 27, "L01/kv_out"),
        (26, 30, "L01/ffn.0"),
        (30, 34, "head/logits"),
    ]


def test_a_third_cache_waits_until_the_first_buffer_is_written_back() -> None:
    three = stories.even(layers=3)
    graph = lowered(three, stories.layers(three, kv="ram"), decode_shape(1, 1, 5))
    rows = {name: (start, end) for start, end, name in log(graph)}
    assert rows["L00/kv_out"] == (14, 15)
    assert rows["L02/kv_in"] == (15, 20)


def test_batches_of_a_pass_share_the_two_buffers() -> None:
    graph = lowered(ONE, stories.layers(ONE, kv="ram"), decode_shape(1, 1, 5), batches="AB", micro=2)
    names = [task.name.removeprefix("verify.0/") for task in graph.tasks]
    waits = {name: [names[i] for i in task.deps] for name, task in zip(names, graph.tasks, strict=True)}
    assert waits["A/L00/kv_in#0"] == waits["A/L00/kv_in#1"] == ["A/embed/lookup"]
    assert waits["B/L00/kv_in#0"] == ["A/L00/kv_out#0", "B/embed/lookup"]
    assert waits["B/L00/kv_in#1"] == ["A/L00/kv_out#1", "B/embed/lookup"]


def test_prefill_fills_buffers_that_have_to_be_written_back() -> None:
    three = stories.even(layers=3)
    graph = lowered(three, stories.layers(three, kv="ram"), prefill_shape([20]))
    rows = {name: (start, end) for start, end, name in log(graph)}
    assert not any("kv_in" in name for name in rows)
    assert rows["L00/attention"] == (20, 28)
    assert rows["L00/kv_out"] == (28, 48)
    assert rows["L01/attention"] == (32, 40)
    assert rows["L01/kv_out"] == (48, 68)
    assert rows["L02/attention"] == (48, 56)  # the layer before it ended at 44, its buffer was free at 48


def test_micro_batches_of_attention_overlap_the_link_and_the_cpu() -> None:
    # two of a token each: while the CPU attends for the first, the GPU projects for the second
    assert log(lowered(ONE, stories.layers(ONE, "cpu"), decode_shape(2, 1, 0), micro=2)) == [
        (0, 2, "embed/lookup"),
        (2, 6, "L00/qkv#0"),
        (6, 7.5, "L00/qkv_out#0"),
        (6, 10, "L00/qkv#1"),
        (7.5, 11.5, "L00/attention#0"),
        (10, 11.5, "L00/qkv_out#1"),
        (11.5, 12, "L00/heads_in#0"),
        (11.5, 15.5, "L00/attention#1"),
        (12, 16, "L00/output#0"),
        (15.5, 16, "L00/heads_in#1"),
        (16, 20, "L00/output#1"),
        (20, 24, "L00/ffn.0"),
        (24, 28, "head/logits"),
    ]


# where the FFN runs


def test_an_ffn_on_the_cpu() -> None:
    layers = stories.layers(ONE, ffn="pinned", cpu_parts=1)
    assert log(lowered(ONE, layers)) == [
        (0, 1, "embed/lookup"),
        (1, 9, "L00/attention"),
        (9, 10, "L00/ffn_out"),
        (10, 14, "L00/ffn.0"),
        (14, 15, "L00/ffn_in"),
        (15, 19, "head/logits"),
    ]


def waits(graph: Graph) -> dict[str, list[str]]:
    names = [task.name.partition("/")[2].removeprefix("A/") for task in graph.tasks]
    return {name: [names[i] for i in task.deps] for name, task in zip(names, graph.tasks, strict=True)}


def test_parts_on_both_processors_meet_after_the_last_of_each() -> None:
    model = stories.moe(layers=2)
    graph = lowered(model, stories.layers(model, ffn="pinned", cpu_parts=2))
    deps = waits(graph)
    streams = {task.name: task.stream for task in graph.tasks}
    assert [streams[f"verify.0/A/L00/ffn.{part}"] for part in range(4)] == ["gpu", "gpu", "cpu", "cpu"]
    assert deps["L00/ffn.1"] == ["L00/attention", "L00/load_ffn.1"]
    assert deps["L00/ffn_out"] == ["L00/attention"]
    assert deps["L00/ffn.2"] == deps["L00/ffn.3"] == ["L00/ffn_out"]
    assert deps["L00/ffn_in"] == ["L00/ffn.3"]
    assert deps["L01/attention"] == ["L00/ffn.1", "L00/ffn_in"]
    assert "L00/load_ffn.2" not in deps


# where weights come from


def test_the_third_load_waits_for_the_first_unit_to_be_used() -> None:
    # the embedding and the first load share the link for 2 s
    assert log(lowered(TWO, stories.layers(TWO, weights="pinned"))) == [
        (0, 2, "embed/lookup"),
        (0, 7, "L00/load_attention"),
        (7, 13, "L00/load_ffn.0"),
        (7, 15, "L00/attention"),
        (15, 19, "L00/ffn.0"),
        (15, 21, "L01/load_attention"),
        (21, 27, "L01/load_ffn.0"),
        (21, 29, "L01/attention"),
        (29, 33, "L01/ffn.0"),
        (33, 37, "head/logits"),
    ]


def test_with_three_slots_the_link_does_not_wait() -> None:
    rows = log(lowered(TWO, stories.layers(TWO, weights="pinned"), slots=3))
    loads = [(start, end) for start, end, name in rows if "load" in name]
    assert loads == [(0, 7), (7, 13), (13, 19), (19, 25)]


def test_pageable_weights_come_at_half_the_rate() -> None:
    rows = log(lowered(ONE, stories.layers(ONE, weights="pageable")), overhead=100)
    assert [row for row in rows if "load" in row[2]] == [(0, 13, "L00/load_attention"), (13, 25, "L00/load_ffn.0")]


def test_weights_on_disk_pass_through_ram() -> None:
    rows = log(lowered(TWO, stories.layers(TWO, weights="disk")), overhead=0)
    assert rows == [
        (0, 1, "embed/lookup"),
        (0, 6, "L00/read_attention"),
        (6, 12, "L00/load_attention"),
        (6, 12, "L00/read_ffn.0"),
        (12, 18, "L00/load_ffn.0"),
        (12, 18, "L01/read_attention"),
        (18, 24, "L01/load_attention"),
        (18, 24, "L01/read_ffn.0"),
        (24, 30, "L01/load_ffn.0"),
    ]


def test_without_a_gpu_the_disk_fills_the_ring() -> None:
    rows = log(lowered(TWO, stories.layers(TWO, "bare", "disk"), main="cpu"), bare=True)
    assert [row for row in rows if "embed" not in row[2]] == [
        (0, 6, "L00/load_attention"),
        (6, 12, "L00/load_ffn.0"),
        (6, 14, "L00/attention"),
        (14, 18, "L00/ffn.0"),
        (14, 20, "L01/load_attention"),
        (20, 26, "L01/load_ffn.0"),
        (20, 28, "L01/attention"),
        (28, 32, "L01/ffn.0"),
        (32, 36, "head/logits"),
    ]


def test_what_a_cpu_reads_from_disk_takes_no_slot_in_vram() -> None:
    # FFNs on disk and on the CPU use the buffers in RAM; so the ring of two holds both layers' attention at once
    layers = stories.layers(TWO, weights="pinned", ffn="disk", cpu_parts=1)
    deps = waits(lowered(stories.even(layers=3), (*layers, layers[0])))
    assert deps["L01/load_attention"] == []
    assert deps["L02/load_attention"] == ["L00/attention"]
    assert deps["L02/load_ffn.0"] == ["L00/ffn.0"]


def test_routed_experts_are_fetched_after_the_router_and_only_those() -> None:
    model = stories.moe(layers=1)
    part = layer_units(model, model.ffn, PART_BYTES).part_bytes
    layers = stories.layers(model, ffn="pinned")
    for batches, tokens in (("A", 1), ("AB", 2)):
        graph = lowered(model, layers, batches=batches, routed=True, slots=8)
        loads = [task for task in graph.tasks if task.kind == "load"]
        share = (1 - 0.5**tokens) if tokens > 1 else 0.5  # 2 of 4 experts by each token
        assert [load.work[0].bytes for load in loads] == [part * share] * 4
        attention = [i for i, task in enumerate(graph.tasks) if task.kind == "attention"]
        assert [list(load.deps) for load in loads] == [attention] * 4


def test_batches_of_a_pass_share_every_fetch() -> None:
    graph = lowered(TWO, stories.layers(TWO, weights="pinned"), batches="AB")
    assert [task.name for task in graph.tasks if task.kind == "load"] == [
        f"verify.0/AB/L{layer:02d}/load_{unit}" for layer in (0, 1) for unit in ("attention", "ffn.0")
    ]
    names = [task.name for task in graph.tasks]
    third = graph.tasks[names.index("verify.0/AB/L01/load_attention")]
    assert [names[i] for i in third.deps] == ["verify.0/A/L00/attention", "verify.0/B/L00/attention"]


# prefill


def test_prefill_computes_where_the_main_processor_is() -> None:
    layers = stories.layers(TWO, "cpu+projections", "pinned", cpu_parts=1)
    moved = on_main(layers, "gpu")
    assert moved == stories.layers(TWO, weights="pinned", kv="ram")
    assert on_main(moved, "gpu") == moved


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("attention", ["gpu", "cpu", "cpu+projections"])
def test_micro_batches_do_the_same_work(attention: str, micro: int) -> None:
    """Weights are read by each micro-batch; FLOPs, KV and traffic are dealt out."""
    model, shape = stories.model(), decode_shape(6, 3, 10)
    layers = stories.layers(model, attention, "pinned", kv="ram")
    whole, dealt = (lowered(model, layers, shape, micro=n) for n in (1, micro))

    def sums(graph: Graph) -> dict[str, tuple[float, float]]:
        kinds = {task.kind for task in graph.tasks}
        works = {kind: [w for t in graph.tasks if t.kind == kind for w in t.work] for kind in kinds}
        return {kind: (sum(w.flops for w in ws), sum(w.bytes for w in ws)) for kind, ws in works.items()}

    one, many = sums(whole), sums(dealt)
    again = (micro - 1) * model.layers * 2 * model.hidden * model.head_dim * 2 * (model.heads + model.kv_heads)
    flops, byte_count = one["attention"]
    one["attention"] = flops, byte_count + again
    assert many.keys() == one.keys()
    for kind, sizes in one.items():
        assert many[kind] == pytest.approx(sizes, rel=1e-12)


def test_a_layer_of_each_kind_of_ffn() -> None:
    dense = FeedForward(64)
    model = stories.moe(layers=2, family="qwen3_moe", dense_ffn=dense, dense_layers=(0,))
    graph = lowered(model, stories.layers(model, weights="pinned"))
    sizes = [task.work[0].bytes for task in graph.tasks if task.kind == "load"]
    sparse, plain = layer_units(model, model.ffn, PART_BYTES), layer_units(model, dense, PART_BYTES)
    assert sizes == [plain.attention_bytes, plain.part_bytes, sparse.attention_bytes, *[sparse.part_bytes] * 4]
