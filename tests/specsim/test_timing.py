"""Seconds of work on a machine of round numbers, and what it takes of every pool meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specsim import profiles
from specsim.cost import timing
from specsim.cost.work import Work, copy, repeat
from specsim.hardware import AttentionCost, Curve, Machine, Op, Processor
from tests.specsim import stories


def gpu(**changes: object) -> Processor:
    """1000 FLOP/s and 100 B/s."""
    return replace(stories.processor(1000, 100), **changes)  # type: ignore[arg-type]


def machine() -> Machine:
    """GPU 1000 FLOP/s and 100 B/s, CPU 100 FLOP/s and 50 B/s with 4 cores, link 10 B/s (pageable 5), disk 4 B/s."""
    return stories.machine(gpu=gpu(), cpu=stories.processor(100, 50), link=10, disk=4)


# compute


def test_the_slower_of_compute_and_memory_counts() -> None:
    assert timing.compute_seconds(gpu(), Work("gemm", 3000, 100)) == 3
    assert timing.compute_seconds(gpu(), Work("gemm", 1000, 500)) == 5
    assert timing.compute_seconds(gpu(), Work("gemm", 2000, 200)) == 2


def test_overhead_is_paid_for_every_call_and_not_for_nothing() -> None:
    slow = gpu(overhead_s=0.5)
    assert timing.compute_seconds(slow, Work("gemm", 3000, 100)) == 3.5
    assert timing.compute_seconds(slow, Work("gemm", 3000, 100, calls=4)) == 5
    assert timing.compute_seconds(slow, Work("gemm", 0, 0)) == 0


def test_efficiencies_belong_to_their_kind_of_work() -> None:
    real = gpu(gemm_efficiency=Curve(((1, 0.25), (100, 0.5))), attention_efficiency=0.1, bandwidth_efficiency=0.8)
    assert timing.compute_seconds(real, Work("gemm", 1000, rows=1)) == 4
    assert timing.compute_seconds(real, Work("gemm", 1000, rows=1000)) == 2
    assert timing.compute_seconds(real, Work("gemm", 1000, rows=10)) == pytest.approx(1 / 0.375)  # half way in log
    assert timing.compute_seconds(real, Work("attention", 1000, rows=1000)) == 10
    assert timing.compute_seconds(real, Work("attention", 0, 80)) == 1


def test_measured_operations_have_overheads_of_their_own_and_rows_that_pass() -> None:
    """Four calls of 0.5 s, 40 bytes at 20 B/s, and because these are few twice the geometric mean of 2 s and 2 s."""
    measured = gpu(overhead_s=9.0, overheads_s={"expert": 0.5}, activation_bytes_per_s={"expert": 20.0})
    assert (
        timing.compute_seconds(measured, Work("gemm", 1000, 50, calls=4, op="expert", activations=40)) == 1 + 2 + 2 + 4
    )
    assert timing.compute_seconds(measured, Work("gemm", 1000, 50, op="head", activations=40)) == 9 + 1
    assert timing.compute_seconds(measured, Work("gemm", 1000, 50)) == 9 + 1


def test_repeated_operations_take_as_many_times_as_long() -> None:
    measured = gpu(overheads_s={"expert": 0.5}, activation_bytes_per_s={"expert": 20.0})
    work = Work("gemm", 1000, 50, op="expert", activations=40)
    once = timing.compute_seconds(measured, work)
    assert timing.compute_seconds(measured, repeat(work, 7)) == pytest.approx(7 * once, rel=1e-12)


def test_measured_attention_is_the_sum_of_its_terms() -> None:
    cost = AttentionCost(sequence_s=0.25, flops_per_s=100.0, kv_bytes_per_s=10.0)
    own = {"overheads_s": {"attention": 1.0}, "activation_bytes_per_s": {"attention": 5.0}}
    measured = gpu(attention=cost, attention_efficiency=0.1, **own)
    work = Work("attention", 300, 90, op="attention", activations=20, sequences=8)
    assert timing.compute_seconds(measured, work) == (1 + 4 + 2 * 2) + 8 * 0.25 + 300 / 100 + 70 / 10


def test_the_most_particular_measured_curve_counts() -> None:
    curves = {"fp32": Curve.flat(0.5), "packed": Curve.flat(0.25), "head": Curve.flat(0.1)}
    measured = gpu(gemm_efficiencies=curves)
    assert timing.compute_seconds(measured, Work("gemm", 1000)) == 1
    assert timing.compute_seconds(measured, Work("gemm", 1000, op="head")) == 10
    assert timing.compute_seconds(measured, Work("gemm", 1000, op="head", packed=True)) == 4
    assert timing.compute_seconds(measured, Work("gemm", 1000, op="head", packed=True, dtype="float32")) == 2


def test_starting_a_task_is_paid_once_and_not_for_nothing() -> None:
    there = stories.machine(cpu=replace(stories.processor(100, 50), task_s=0.5))
    assert timing.seconds(there, "cpu", (Work("gemm", 100), Work("gemm", 200))) == 3.5
    assert timing.seconds(there, "cpu", (Work("gemm"),)) == 0


def test_what_a_run_adds_is_paid_once_a_task_by_its_kind() -> None:
    kinds = {"attention": 1.0, "ffn": 2.0, "head": 4.0}
    there = stories.machine(cpu=replace(stories.processor(100, 50), in_run_s=kinds))

    def seconds(*ops: Op) -> float:
        return timing.seconds(there, "cpu", tuple(Work("gemm", 100, op=op) for op in ops))

    assert seconds("projections", "attention") == 2 + 1
    assert seconds("attention") == 1 + 1
    assert (seconds("expert"), seconds("dense"), seconds("head")) == (1 + 2, 1 + 2, 1 + 4)
    assert timing.seconds(there, "cpu", (Work("gemm", 100),)) == 1
    assert timing.seconds(there, "cpu", (Work("gemm", op="head"),)) == 0


def test_draft_steps_have_a_share_of_their_pieces_speed_in_a_run() -> None:
    processor = replace(stories.processor(100, 50), in_run_s={"attention": 9.0}, draft_efficiency=0.5, task_s=0.25)
    there = stories.machine(cpu=processor)
    step = (Work("gemm", 100, op="projections"), Work("gemm", 100, op="head"))
    assert timing.seconds(there, "cpu.draft", step) == 2 / 0.5 + 0.25
    assert timing.seconds(there, "cpu.draft@0", step) == timing.seconds(there, "cpu.draft", step)
    assert timing.seconds(there, "cpu", step) == 2 + 9 + 0.25


def test_each_dtype_has_its_own_peak() -> None:
    mixed = gpu(flops_per_s={"fp32": 10.0, "bf16": 100.0, "fp16": 1000.0})
    works = {dtype: Work("gemm", 1000, dtype=dtype) for dtype in ("float32", "bfloat16", "float16")}
    assert {dtype: timing.compute_seconds(mixed, work) for dtype, work in works.items()} == {
        "float32": 100,
        "bfloat16": 10,
        "float16": 1,
    }


def test_a_dtype_that_a_processor_has_no_units_for_runs_as_fp32() -> None:
    old = gpu(flops_per_s={"fp32": 10.0, "bf16": 100.0})
    assert timing.compute_seconds(old, Work("gemm", 1000, dtype="float16")) == 100


@pytest.mark.parametrize("name", profiles.names("host"))
def test_every_shipped_host_runs_every_dtype(name: str) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        assert timing.compute_seconds(profiles.host(name).processor, Work("gemm", 1e12, dtype=dtype)) > 0


def test_a_task_takes_the_sum_of_its_works() -> None:
    works = (Work("gemm", 3000, 100), Work("attention", 100, 200))
    assert timing.seconds(machine(), "gpu", works) == 3 + 2
    assert timing.seconds(machine(), "gpu.draft", works) == 3 + 2
    assert timing.seconds(machine(), "cpu", works) == 30 + 4


# copies


@pytest.mark.parametrize(
    ("resource", "pinned", "seconds"), [("h2d", True, 4), ("d2h", True, 4), ("h2d", False, 8), ("disk", True, 10)]
)
def test_copies_by_route(resource: str, pinned: bool, seconds: float) -> None:
    assert timing.seconds(machine(), resource, (copy(40, pinned=pinned),)) == seconds


def test_a_copy_starts_after_its_latency() -> None:
    there = machine()
    assert there.link is not None
    slow = replace(there, link=replace(there.link, latency_s=1.0), disk=replace(there.disk, latency_s=2.0))
    assert timing.seconds(slow, "h2d.act", (copy(40),)) == 5
    assert timing.seconds(slow, "disk", (copy(40),)) == 12
    assert timing.seconds(slow, "h2d", (copy(0),)) == 0


# demand


def demand(stream: str, *works: Work) -> dict[str, float]:
    there = machine()
    return dict(timing.demand(there, stream, works, timing.seconds(there, stream, works)))


def test_compute_takes_its_processor_and_a_share_of_its_memory() -> None:
    assert demand("gpu", Work("gemm", 3000, 100)) == {"gpu": 1, "vram_bw": 1 / 3}
    assert demand("gpu.draft", Work("gemm", 1000, 500)) == {"gpu": 1, "vram_bw": 1}
    assert demand("cpu", Work("gemm", 400, 100)) == {"cpu": 1, "dram": 0.5}
    assert demand("gpu", Work("gemm", 3000, 100), Work("attention", 0, 100)) == {"gpu": 1, "vram_bw": 0.5}


def test_a_pinned_copy_takes_both_memories() -> None:
    # 10 B/s of DRAM's 50 and of VRAM's 100
    assert demand("h2d", copy(40)) == {"h2d": 1, "dram": 0.2, "vram_bw": 0.1}
    assert demand("d2h", copy(40)) == {"d2h": 1, "dram": 0.2, "vram_bw": 0.1}


def test_a_pageable_copy_passes_dram_three_times_and_keeps_a_core() -> None:
    # 5 B/s, three times in DRAM's 50
    assert demand("h2d", copy(40, pinned=False)) == {"h2d": 1, "dram": 0.3, "vram_bw": 0.05, "cpu": 0.25}


def test_a_read_takes_the_disk_and_dram() -> None:
    assert demand("disk", copy(40)) == {"disk": 1, "dram": 4 / 50}


def test_a_measured_disk_and_cpu_take_a_share_of_each_other() -> None:
    there = machine()
    there = replace(there, disk=replace(there.disk, cpu_bytes_per_s=16.0, lost_share=0.125))
    read, works = copy(40), (Work("gemm", 400, 100),)
    assert dict(timing.demand(there, "disk", (read,), 10.0)) == {"disk": 1, "dram": 4 / 50, "cpu": 0.25}
    assert dict(timing.demand(there, "cpu", works, 4.0)) == {"cpu": 1, "dram": 0.5, "disk": 0.125}
    assert "disk" not in dict(timing.demand(there, "gpu", works, 1.0))


def test_nothing_takes_nothing() -> None:
    assert demand("h2d", copy(0)) == {}
    assert demand("gpu", Work("gemm")) == {}


def test_no_share_is_above_one() -> None:
    # a link of 10 B/s into a host that reads 8 B/s: the copy takes all of DRAM, not more
    there = stories.machine(cpu=stories.processor(1, 8), link=10)
    assert dict(timing.demand(there, "h2d", (copy(40),), 4))["dram"] == 1


def test_two_streams_of_one_resource_share_it() -> None:
    assert [timing.resource(stream) for stream in ("gpu", "gpu.draft", "h2d.act", "d2h")] == [
        "gpu",
        "gpu",
        "h2d",
        "d2h",
    ]
