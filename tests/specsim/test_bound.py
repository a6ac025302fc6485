"""The roofline, worked out by hand: what moves, what computes, what lies on disk, and how resources share work."""

from __future__ import annotations

import pytest

from specsim.cost.shapes import PassShape, decode_shape
from specsim.model import FeedForward
from specsim.planner.bound import Demand, job_bound, pass_bound
from specsim.planner.candidates import Fixed, make
from tests.specsim import stories

# Two layers, each of attention and one FFN part of 24 bytes; the link and the disk move 4 bytes a second.
ONE_TOKEN = decode_shape(1, 1, 0)
STUCK = stories.processor(flops=1e-30)  # a CPU that never ends


def test_what_has_no_room_moves_over_the_link() -> None:
    case = stories.case(stories.machine(cpu=STUCK), stories.even())
    assert pass_bound(case, ONE_TOKEN, 0.0) == pytest.approx(4 * 24 / 4)
    assert pass_bound(case, ONE_TOKEN, 36.0) == pytest.approx((96 - 36) / 4)
    assert pass_bound(case, ONE_TOKEN, 96.0) == pytest.approx(0.0, abs=1e-20)


def test_without_a_gpu_it_moves_from_the_disk() -> None:
    case = stories.case(stories.machine(bare=True, disk=2.0), stories.even())
    assert pass_bound(case, ONE_TOKEN, 48.0) == pytest.approx(48 / 2)


def test_what_is_resident_still_has_to_be_computed_and_the_head_too() -> None:
    case = stories.case(stories.machine(gpu=stories.processor(flops=4.0), cpu=STUCK), stories.even())
    # Projections 2 * 8, scores 4 * 1 and FFN 6 * 2 * 2 FLOPs in each layer, 2 * 2 * 5 for the logits.
    assert pass_bound(case, ONE_TOKEN, 96.0) == pytest.approx((2 * (16 + 4 + 24) + 20) / 4)


def test_two_processors_share_the_layers_and_the_head_stays() -> None:
    slow = stories.processor(flops=4.0)
    case = stories.case(stories.machine(gpu=slow, cpu=slow, link=1e9), stories.even())
    # 108 FLOPs on two processors of 4 a second: the head alone does not make the GPU's share too large.
    assert pass_bound(case, ONE_TOKEN, 96.0) == pytest.approx((2 * 44 + 20) / 2 / 4)


def test_the_link_brings_what_the_cpu_would_take_long_for_and_the_cpu_meets_the_rest() -> None:
    """Attention over 1000 positions takes the CPU (16 + 4 * 1000) / 24 s, an FFN 1 s; a copy of either takes 6 s.

    Each shared in its best proportion they would take 2 * 5.8 + 2 * 0.9 = 13.3 s; but they run side by side, the
    attention on the link and the FFNs on the CPU: T = 6 x = 2 + 167.3 (2 - x).
    """
    case = stories.case(stories.machine(cpu=stories.processor(flops=24.0)), stories.even())
    shape = PassShape(1.0, 1.0, 1000.0, 0.0, 1.0)
    met = (16 + 4000) / 24
    copied = (2 + 2 * met) / (6 + met)  # layers whose attention is copied
    assert pass_bound(case, shape, 0.0) == pytest.approx(6 * copied)
    assert pass_bound(case, shape, 0.0) < 12.0  # what a plan reaches that copies all attention and no FFN


def test_what_no_memory_holds_is_read_from_disk() -> None:
    case = stories.case(stories.machine(vram=30.0, ram=40.0, disk=1.0, cpu=STUCK, link=1e9), stories.even())
    assert pass_bound(case, ONE_TOKEN, 30.0) == pytest.approx(96 - 70)
    assert pass_bound(case, ONE_TOKEN, 30.0, held=20.0) == pytest.approx(96 - 50)


def test_fetching_on_demand_reads_only_the_experts_that_are_asked_for() -> None:
    target = stories.even(family="mixtral", ffn=FeedForward(2, experts=4, top_k=1))
    case = stories.case(stories.machine(bare=True, ram=0.0, disk=1.0), target)
    attention = 24 + 2 * 4 * 2  # the router is counted with it
    assert pass_bound(case, ONE_TOKEN, 0.0) == pytest.approx(2 * (attention + 4 * 24))
    assert pass_bound(case, ONE_TOKEN, 0.0, routed=True) == pytest.approx(2 * (attention + 24))


def test_a_job_is_rounds_and_a_prefill() -> None:
    case = stories.case(stories.machine(cpu=STUCK), stories.even(), stories.workload(4, 5, 1))
    plain = make(case, "serial", 0, 1, 0, "all", Fixed())
    assert job_bound(case, plain, Demand(4.0, 4.0, 4.0, [4.0])) == pytest.approx(0.0, abs=1e-20)  # all resident
    cramped = case.on(stories.machine(vram=5000.0, ram=50.0, cpu=STUCK))
    assert job_bound(cramped, plain, Demand(4.0, 4.0, 4.0, [4.0])) == pytest.approx(0.0, abs=1e-20)
    assert job_bound(case.on(stories.machine(vram=1.0)), plain, Demand(4.0, 4.0, 4.0, [4.0])) == float("inf")


def test_many_rounds_of_few_rows_take_as_long_as_rounds_of_one_row() -> None:
    """A full house of 4 sequences takes the GPU 4 s a round, one sequence 1 s."""
    row = 2 * (16 + 4 + 24) + 20  # FLOPs of a token that attends to itself
    on = stories.machine(gpu=stories.processor(flops=float(row)), cpu=STUCK)
    case = stories.case(on, stories.even(), stories.workload(1, 5, 4))
    full = make(case, "serial", 0, 4, 0, "all", Fixed())
    prefill = 20 / row  # of an empty prompt: its logits
    assert job_bound(case, full, Demand(2.0, 3.0, 0.0, [0.0])) == pytest.approx(2 * 4.0 + prefill)
    assert job_bound(case, full, Demand(2.0, 9.0, 0.0, [0.0])) == pytest.approx(9 * 1.0 + prefill)


def test_newcomers_have_to_be_computed_whatever_the_rounds() -> None:
    """A prompt token costs 40 FLOPs a layer, and none for its logits; 4096 may join by a pass."""
    on = stories.machine(gpu=stories.processor(flops=80.0), cpu=STUCK)
    case = stories.case(on, stories.even(), stories.workload(1, 5, 4))
    full = make(case, "serial", 0, 4, 0, "all", Fixed())
    assert job_bound(case, full, Demand(0.0, 0.0, 0.0, [0.0], joining=8192.0)) == pytest.approx(8192 + 20 / 80)


def test_drafting_adds_to_verifying_unless_they_are_interleaved() -> None:
    on = stories.machine(gpu=stories.processor(flops=1.0), cpu=STUCK)
    case = stories.case(on, stories.even(), stories.workload(1, 5, 2), draft=stories.even())
    row = 2 * (16 + 4 + 24) + 20
    pair = 2 * (32 + 12 + 48) + 40  # two positions: the second attends to the first as well
    demand = Demand(1.0, 0.0, 0.0, [0.0])
    serial = job_bound(case, make(case, "serial", 1, 2, 0, "all", Fixed()), demand)
    prefill = 20
    assert serial == pytest.approx(2 * pair + 2 * row + prefill)
    interleaved = job_bound(case, make(case, "interleaved", 1, 1, 0, "all", Fixed()), demand)
    assert interleaved == pytest.approx(2 * pair + prefill)
