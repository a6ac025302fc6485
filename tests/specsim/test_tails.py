"""When few sequences are left the CPU takes over what lies in RAM; nothing moves house, and no round gets slower."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import HealthCheck, assume, given, settings

from specsim.case import Case
from specsim.decision import Decision, LayerPlacement
from specsim.model import FeedForward
from specsim.planner.candidates import Fixed, make
from specsim.planner.evaluate import Evaluator
from specsim.schedule.round import RoundShape
from specsim.simulator.job import RoundPricer
from tests.specsim import stories, worlds

#: the mean context is rounded on the way
TOLERANCE = 1.02


def homes(place: LayerPlacement) -> tuple[str, str, tuple[str, ...]]:
    return place.attention.weights, place.attention.kv, tuple(part.weights for part in place.ffn)


def planned(case: Case, in_flight: int) -> Decision | None:
    """A serial plan with its tails: with speculation sequences end at different rounds."""
    evaluator = Evaluator(case)
    placed = evaluator.place(make(case, "serial", 2, in_flight, 3, "all", Fixed()))
    return None if placed is None else evaluator.with_tails(placed.decision)


def in_ram(case: Case) -> Case:
    """The same case where RAM takes all that VRAM does not."""
    return case.on(
        replace(case.machine, ram_budget_bytes=case.machine.ram_budget_bytes + 2.0 * case.target.weight_bytes)
    )


@settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much])  # few worlds have tails that pay
@given(worlds.cases(gpu=True, draft=True).map(in_ram))
def test_tails_keep_every_home_and_never_slow_their_rounds(case: Case) -> None:
    decision = planned(case, case.workload.requests)
    assume(decision is not None and decision.tails)
    assert decision is not None
    rows = [tail.rows for tail in decision.tails]
    assert rows == sorted(set(rows), reverse=True)
    bare = msgspec.structs.replace(decision, tails=())
    with_tails, without = RoundPricer(case, decision, grid=1.0001), RoundPricer(case, bare, grid=1.0001)
    for tail in decision.tails:
        assert [homes(place) for place in tail.layers] == [homes(place) for place in decision.layers]
        shape = RoundShape(float(tail.rows), Evaluator(case).context)
        assert with_tails.steady(shape) <= TOLERANCE * without.steady(shape)


@settings(max_examples=12)
@given(worlds.cases(gpu=True, draft=True))
def test_a_dense_ffn_stays_on_one_processor(case: Case) -> None:
    case = replace(case, target=replace(case.target, hidden=4096, ffn=FeedForward(24576)))
    decision = planned(case, case.workload.requests)
    assume(decision is not None)
    assert decision is not None
    for placed in (decision.layers, *(tail.layers for tail in decision.tails)):
        assert all(len({part.processor for part in place.ffn}) == 1 for place in placed)


def test_one_sequence_is_met_in_ram_where_a_full_house_is_streamed() -> None:
    """An FFN of 24 bytes is copied in 6 s. On the CPU each sequence takes 1 s, and its hidden state 1 s each way."""
    on = stories.machine(cpu=stories.processor(flops=24.0), link=4.0)
    case = stories.case(on, stories.even(), stories.workload(1, 5, 17))
    decision = stories.decision("serial", stories.layers(case.target, ffn="pinned"), batch=16, prefill_batch=16)
    tails = Evaluator(case).with_tails(decision).tails
    assert [tail.rows for tail in tails] == [1]  # of 16, 8, 4, 2 and 1; two sequences would take 6 s either way
    assert {part.processor for place in tails[0].layers for part in place.ffn} == {"cpu"}
    assert {place.attention for place in tails[0].layers} == {place.attention for place in decision.layers}


def test_newcomers_are_not_left_to_the_processors_of_a_tail() -> None:
    """A sequence that is left alone is met on the CPU; with a newcomer's 160 tokens the layers are streamed."""
    on = stories.machine(cpu=stories.processor(flops=24.0), link=4.0)
    case = stories.case(on, stories.even(), stories.workload(1, 5, 17))
    bare = stories.decision("serial", stories.layers(case.target, ffn="pinned"), batch=16, prefill_batch=16)
    tailed = Evaluator(case).with_tails(bare)
    alone, joined = RoundShape(1.0, 1.0), RoundShape(1.0, 1.0, joining=160.0)
    assert RoundPricer(case, tailed).steady(alone) < RoundPricer(case, bare).steady(alone)
    assert RoundPricer(case, tailed).steady(joined) == RoundPricer(case, bare).steady(joined)


def test_requests_that_end_together_leave_no_tail() -> None:
    on = stories.machine(cpu=stories.processor(flops=24.0), link=4.0)
    decision = stories.decision("serial", stories.layers(stories.even(), ffn="pinned"), batch=16, prefill_batch=16)
    for requests, tails in ((16, 0), (17, 1)):
        case = stories.case(on, stories.even(), stories.workload(1, 5, requests))
        assert len(Evaluator(case).with_tails(decision).tails) == tails


def test_what_is_resident_or_on_disk_has_no_tails() -> None:
    case = stories.case(stories.machine(), stories.even(), stories.workload(1, 5, 17))
    for home in ("vram", "disk"):
        decision = stories.decision("serial", stories.layers(case.target, ffn=home), batch=16)
        assert Evaluator(case).with_tails(decision).tails == ()
