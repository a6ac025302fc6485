"""Plans over several devices: what fits, what bounds them, and that more devices are never worse."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from specsim import machines
from specsim.acceptance import Acceptance
from specsim.answer import Plan
from specsim.case import Case
from specsim.devices import straddles
from specsim.errors import InputError
from specsim.hardware import Peer
from specsim.memory import peak_items, shortfall, stage_items, totals
from specsim.model import FeedForward
from specsim.planfile import from_dict, to_dict
from specsim.planner.candidates import Fixed, candidates, make
from specsim.planner.evaluate import Evaluator
from specsim.planner.infeasible import least_anywhere
from specsim.planner.layouts import layouts, search_all
from specsim.planner.plan import make_plan
from specsim.planner.replan import _Walk, carry, replan
from specsim.planner.search import Search, SearchResult
from specsim.report.sections import decisions
from specsim.simulator.job import simulate_job
from specsim.stages import stages
from specsim.units import MiB
from specsim.workload import Workload
from tests.specsim import worlds

TARGET = worlds.decoder("target", 8, 1024, FeedForward(4096))
DRAFT = worlds.decoder("draft", 2, 256, FeedForward(512))
WORK = Workload("work", "work", 32, 32, 32, 8, 8)
SEARCH = (5, 1)
QUICK: dict[str, Any] = {"gamma": 2, "refill": False}


def case(devices: int, *, bare: bool = False) -> Case:
    """Devices of which none holds the target's 280 MB: cards on a host that does, or machines with less RAM."""
    many: dict[str, Any] = {"devices": devices} if devices > 1 else {}
    if bare:
        many |= {"peer": 1.2e9} if devices > 1 else {}
        on = machines.assemble(host="desktop-ddr5-64g", ram=160 * MiB, **many)
    else:
        on = machines.assemble(gpu="rtx4090", vram=160 * MiB, **many)
    return Case(on, TARGET, WORK, DRAFT, Acceptance.constant(0.8, "assumed", "tests"))


@cache
def found(bare: bool, devices: int) -> SearchResult:
    return search_all(case(devices, bare=bare), Fixed(**QUICK), None, *SEARCH, survey=False)


@cache
def over_two() -> Plan:
    return make_plan(case(2), Fixed(**QUICK, stages=2, tensor=1, strategy="interleaved", batch=2))


@pytest.mark.parametrize("bare", [False, True])
def test_more_devices_are_never_slower_when_planned_anew(bare: bool) -> None:
    rates = [found(bare, devices).found[0].tokens_per_second for devices in (1, 2, 3)]
    assert all(more >= 0.99 * fewer for fewer, more in pairwise(rates))
    assert rates[-1] > rates[0]


@pytest.mark.parametrize("bare", [False, True])
def test_what_is_found_fits_every_device_and_is_within_its_bound(bare: bool) -> None:
    asked = case(3, bare=bare)
    result = found(bare, 3)
    evaluator = Evaluator(asked)
    for f in result.found:
        assert shortfall(asked.machine.budgets(), peak_items(asked, f.decision)) is None
        assert evaluator.bound_seconds(f.candidate) <= simulate_job(asked, f.decision, grid=1.0001).makespan_s * 1.001
    assert {f.decision.policy.devices for f in result.found} > {1}


def test_a_device_more_may_be_left_idle_where_a_tensor_split_of_two_wins() -> None:
    """Whose devices do not divide the three."""
    fixed, work = Fixed(gamma=0, strategy="serial", refill=False), replace(WORK, requests=1)
    best = []
    for devices in (2, 3):
        on = replace(machines.assemble(gpu="rtx4090", vram=200 * MiB, devices=devices), peer=Peer(1e12, 0.0))
        best.append(search_all(Case(on, TARGET, work), fixed, None, *SEARCH, survey=False).found[0])
    two, three = best
    assert two.candidate.policy.tensor == 2
    assert three.tokens_per_second >= two.tokens_per_second
    odd = replace(case(3).machine, devices=6)
    assert [straddles(odd, *split) for split in ((1, 2), (2, 2), (1, 4), (3, 1))] == [False, True, True, False]


def test_caches_on_several_devices_take_no_more_than_they_may_together() -> None:
    asked, models = case(2), (TARGET, DRAFT)
    each = sum(model.layers * model.kv_bytes_per_token_layer for model in models)
    for stages_, tensor in ((1, 1), (2, 1), (1, 2)):
        fixed = Fixed(stages=stages_, tensor=tensor, kv_bytes=100.0 * each)
        assert make(asked, "serial", 2, 2, 3, "all", fixed).policy.kv_positions == 100


def test_only_what_has_the_batches_that_are_fixed_is_looked_at() -> None:
    asked = case(2)
    found = [c for on in layouts(asked, Fixed(batches=5)) for c in candidates(asked, on)]
    assert {(c.strategy, c.policy.stages, c.policy.batches) for c in found} == {("interleaved", 2, 5)}
    for fixed in (Fixed(batches=5, stages=1), Fixed(batches=5, strategy="serial"), Fixed(batches=99)):
        with pytest.raises(InputError, match="batches in flight are not what"):
            search_all(asked, fixed)


def test_advice_is_for_all_devices() -> None:
    """One device would have to hold the two halves of a layer."""
    asked = case(4)
    small = asked.on(replace(asked.machine, vram_budget_bytes=12.0 * MiB)).plain()
    tried = {(c.policy.stages, c.policy.tensor) for c in least_anywhere(small, Fixed())}
    assert tried == {(on.stages, on.tensor) for on in layouts(small, Fixed())}


def test_a_changed_link_is_planned_on_as_many_devices_as_serve_it() -> None:
    """What wins over a fast link is carried on where another number of devices wins."""
    fixed = Fixed(**QUICK, strategy="serial", batch=8)
    asked = case(2)
    carried = carry(asked, fixed, search_all(asked, fixed, None, *SEARCH, survey=False))
    assert {(c.policy.stages, c.policy.tensor) for c in carried.candidates} == {(1, 1), (1, 2), (2, 1)}
    slow = asked.on(replace(asked.machine, peer=Peer(1e6, 0.01)))
    again = replan(slow, fixed, carried)
    assert again is not None
    full = search_all(slow, fixed, None, *SEARCH, survey=False).found[0]
    assert again.candidate.policy.devices == full.candidate.policy.devices == 1
    assert again.tokens_per_second >= 0.97 * full.tokens_per_second


def test_longer_and_shorter_sweeps_stay_on_the_same_devices() -> None:
    asked, fixed = case(2), Fixed(**QUICK, strategy="serial", batch=8)
    on_two = make(asked, "serial", 2, 8, 3, "all", replace(fixed, stages=2, tensor=1))
    walk = _Walk(asked, fixed)
    for c in (walk.sweeps(on_two), walk.chunks(on_two), *walk.shrink([on_two])):
        assert (c.policy.stages, c.policy.tensor) == (2, 1)
    assert {c.policy.stages for c in walk.placed} == {2}


def test_one_device_is_searched_as_ever() -> None:
    asked = case(1)
    alone, result = Search(asked, Fixed(**QUICK), None, *SEARCH, survey=False).run(), found(False, 1)
    assert [f.decision for f in result.found] == [f.decision for f in alone.found]


def test_the_fullest_device_counts_and_of_what_is_shared_the_sum() -> None:
    asked = case(2)
    fixed = Fixed(**QUICK, stages=2, tensor=1, strategy="serial", batch=2)
    decision = Search(asked, fixed, None, *SEARCH).run().found[0].decision
    both = [totals(stage_items(stage, decision)) for stage in stages(asked, decision.policy)]
    peaks = totals(peak_items(asked, decision))
    for phase in ("prefill", "decode"):
        assert peaks[phase]["vram"] == max(one[phase]["vram"] for one in both)
        processes = asked.machine.host.process_bytes
        assert peaks[phase]["ram"] == pytest.approx(sum(one[phase]["ram"] for one in both) + processes)


def test_a_plan_over_devices_reads_back_as_it_was_written() -> None:
    plan = over_two()
    assert plan.decision.policy.batches == 3
    assert from_dict(to_dict(plan), "plan").decision == plan.decision
    assert "gpu@1" in plan.predicted.utilisation


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"stages": 3}, "stages x policy.tensor is 3"),
        ({"batches": 1}, "has 2 to 26 in flight"),
        ({"tensor": 0}, "1 or"),
    ],
)
def test_a_plan_that_the_devices_cannot_run_is_refused(policy: dict[str, int], said: str) -> None:
    written = to_dict(over_two())
    written["policy"] |= policy
    with pytest.raises(InputError, match=said):
        from_dict(written, "plan")


def test_layouts_are_those_that_the_devices_and_the_model_allow() -> None:
    asked = case(4)
    cut = [(on.stages, on.tensor) for on in layouts(asked, Fixed())]
    assert cut == [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
    assert [(on.stages, on.tensor) for on in layouts(asked, Fixed(tensor=2))] == [(1, 2), (2, 2)]
    with pytest.raises(InputError, match="cannot be cut into 5 stages"):
        list(layouts(asked, Fixed(stages=5)))


def test_a_plan_says_how_its_devices_are_used_and_what_like_ones_wait_for() -> None:
    plan = over_two()
    said = dict(decisions(plan))
    assert said["devices"] == "2 of 2: 2 stages (2 of 4 layers)"
    assert re.search(r"gpu \d+% to \d+%", said["busy"])
    assert "@" not in plan.predicted.bottleneck
