"""Whole jobs, worked out by hand; and what holds for any job.

In exact stories everything is in VRAM and every kernel takes 4 s: a pass over the two layers of `stories.even` takes
28 s and its embedding 1 s a token, so a round of 4 sequences 32 s, and a prefill of 4 prompts of 4 tokens 44 s.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specsim import machines, profiles
from specsim.acceptance import Acceptance, expected_tokens
from specsim.case import Case
from specsim.decision import Decision, Tail
from specsim.errors import InputError
from specsim.hardware import Machine
from specsim.model import Model, read_config
from specsim.planner.evaluate import SEARCH_GRID
from specsim.schedule.graph import Graph
from specsim.schedule.lower import STRATEGIES, lower_prefill, lower_rounds
from specsim.schedule.round import RoundShape
from specsim.simulator import engine, pricing
from specsim.simulator.job import GRID, JobResult, RoundPricer, simulate_job
from specsim.simulator.progress import gains, rounds_needed
from specsim.workload import Workload
from tests.specsim import stories

EVEN = stories.even()


def exact_case(work: Workload, rate: float = 0.5) -> Case:
    machine = stories.machine(gpu=stories.processor(overhead=4), cpu=stories.processor(overhead=4))
    return stories.case(machine, EVEN, work, draft=stories.even(layers=1), rate=rate)


def plan(strategy: str = "serial", *, weights: str = "vram", **policy: Any) -> Decision:
    numbers: dict[str, Any] = {"batch": 4, "draft": stories.on_cpu("ram", 4)} | policy
    return stories.decision(strategy, stories.layers(EVEN, weights=weights), **numbers)


# progress


def test_plain_decoding_gains_a_token_a_round() -> None:
    assert gains(None, 0, 3, 4).tolist() == [[1, 2, 3, 4]] * 3
    assert rounds_needed(None, 0, 3, 4).tolist() == [4, 4, 4]


@pytest.mark.parametrize("tokens", [1, 4, 11, 12, 13])
@pytest.mark.parametrize("gamma", [1, 3, 5])
def test_a_perfect_draft_gains_gamma_and_one(gamma: int, tokens: int) -> None:
    assert rounds_needed(stories.acceptance(1), gamma, 2, tokens).tolist() == [ceil(tokens / (gamma + 1))] * 2


def test_a_hopeless_draft_gains_the_targets_own_token() -> None:
    assert gains(stories.acceptance(0), 3, 2, 3).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_gains_rise_to_the_end_and_stop_there() -> None:
    total = gains(stories.acceptance(0.6), 4, 50, 30)
    steps = np.diff(total, axis=1, prepend=0)
    assert (total[:, -1] == 30).all()
    assert ((steps >= 1) & (steps <= 5) | (total == 30)).all()
    assert (steps[total < 30] >= 1).all()


def test_a_request_has_its_own_luck_whoever_is_beside_it() -> None:
    few, many = (gains(stories.acceptance(0.6), 4, requests, 30, seed=7) for requests in (10, 200))
    rounds = min(few.shape[1], many.shape[1])
    assert (few[:, :rounds] == many[:10, :rounds]).all()


def test_mean_gain_is_what_theory_expects() -> None:
    acceptance = Acceptance((0.9, 0.7, 0.5), "assumed", "tests")
    first = gains(acceptance, 3, 20_000, 100)[:, 0]
    error = 4 * first.std() / np.sqrt(first.size)
    assert abs(first.mean() - expected_tokens(acceptance, 3)) < error


@pytest.mark.parametrize("gamma", [1, 4, 8])
def test_a_better_draft_never_needs_more_rounds(gamma: int) -> None:
    rounds = [rounds_needed(stories.acceptance(rate), gamma, 200, 64) for rate in (0, 0.2, 0.5, 0.8, 0.95, 1)]
    for worse, better in pairwise(rounds):
        assert (better <= worse).all()
        assert better.mean() < worse.mean()


def test_one_token_is_the_prefills() -> None:
    assert gains(stories.acceptance(), 3, 4, 0).shape == (4, 0)
    assert rounds_needed(stories.acceptance(), 3, 4, 0).tolist() == [0] * 4


@pytest.mark.parametrize("requests", [4, 16, 64, 512])
@pytest.mark.parametrize(("rate", "gamma"), [(0.5, 2), (0.7, 4), (0.7, 8), (0.85, 6)])
def test_the_luck_of_a_plan_is_typical(requests: int, rate: float, gamma: int) -> None:
    """Its slowest request needs about as many rounds as the slowest of other draws do on average."""
    others = [gains(stories.acceptance(rate), gamma, requests, 31, seed).shape[1] for seed in range(100)]
    mean, spread = statistics.mean(others), statistics.stdev(others)
    slowest = int(rounds_needed(stories.acceptance(rate), gamma, requests, 31).max())
    assert abs(slowest - mean) < max(1.5, spread)


# static batches


def test_a_static_batch_of_equal_requests() -> None:
    job = simulate_job(exact_case(stories.workload(4, output=5, requests=4)), plan())
    assert (job.prefill_s, job.decode_s, job.makespan_s) == (44, 4 * 32, 172)
    assert [(r.start_s, r.end_s, r.rows, r.tokens) for r in job.rounds] == [
        (44, 76, 4, 4),
        (76, 108, 4, 4),
        (108, 140, 4, 4),
        (140, 172, 4, 4),
    ]
    assert [r.context for r in job.rounds] == [4, 5, 6, 7]
    assert job.finish_s == (172,) * 4
    assert (job.tokens, job.tokens_per_second) == (20, 20 / 172)


def test_one_batch_after_another() -> None:
    job = simulate_job(exact_case(stories.workload(4, output=5, requests=8)), plan())
    assert (job.prefill_s, job.makespan_s) == (88, 344)
    assert job.finish_s == (172,) * 4 + (344,) * 4


# caches with room for less than all may need


def test_who_finds_no_room_waits_and_is_read_again() -> None:
    """Of 2 requests of 4 + 4 tokens, both have 6 after their second round, 12 in all. The third is for one alone."""
    job = simulate_job(exact_case(stories.workload(4, output=4, requests=2)), plan(batch=2, kv_positions=12))
    assert [(r.rows, r.tokens) for r in job.rounds] == [(2, 2), (2, 2), (1, 1), (1, 1)]
    assert job.finish_s[0] == job.rounds[2].end_s < job.rounds[3].start_s
    assert job.finish_s[1] == job.rounds[3].end_s == job.makespan_s
    whole = simulate_job(exact_case(stories.workload(4, output=4, requests=2)), plan(batch=2))
    assert job.prefill_s > whole.prefill_s


def test_with_refill_what_waited_joins_a_pass() -> None:
    case = exact_case(stories.workload(4, output=4, requests=2))
    job = simulate_job(case, plan(batch=2, kv_positions=12, refill=True))
    assert [(r.rows, r.joining, r.tokens) for r in job.rounds] == [
        (2, 0, 2),
        (2, 0, 2),
        (1, 0, 1),
        (0, 7, 0),
        (1, 0, 1),
    ]


@pytest.mark.parametrize("refill", [False, True])
@pytest.mark.parametrize("strategy", ["serial", "merged"])
def test_room_for_all_is_as_good_as_no_cap_and_any_room_serves_all(strategy: str, refill: bool) -> None:
    case = exact_case(stories.workload(4, output=9, requests=9, longest=8))
    numbers: dict[str, Any] = {"batch": 2, "gamma": 2, "refill": refill}
    whole = simulate_job(case, plan(strategy, **numbers))
    jobs = [simulate_job(case, plan(strategy, kv_positions=room, **numbers)) for room in (17, 30, 45, 1000)]
    assert jobs[-1] == whole
    for job in jobs[:-1]:
        assert 0 < min(job.finish_s) < max(job.finish_s) == job.makespan_s
        assert job.makespan_s >= whole.makespan_s


def test_room_for_less_than_a_request_is_refused() -> None:
    with pytest.raises(InputError, match="the caches have 7 positions, and a request may need 8; plan again"):
        simulate_job(exact_case(stories.workload(4, output=4, requests=2)), plan(kv_positions=7))


def test_speculation_is_drafting_and_fewer_rounds() -> None:
    # a draft step 16 s; a pass over 3 positions of 4 sequences 12 + 28 s; prefill and transition (16 s) before
    case = exact_case(stories.workload(4, output=7, requests=4), rate=1)
    job = simulate_job(case, plan(gamma=2))
    assert job.prefill_s == 44 + 16
    assert [r.tokens for r in job.rounds] == [12, 12]
    assert job.decode_s == 2 * (2 * 16 + 12 + 28)


def test_tokens_after_a_requests_end_are_not_counted() -> None:
    job = simulate_job(exact_case(stories.workload(4, output=6, requests=4), rate=1), plan(gamma=3))
    assert [r.tokens for r in job.rounds] == [16, 4]  # five tokens to go: four and one, not four and four


def test_one_output_token_needs_no_round() -> None:
    job = simulate_job(exact_case(stories.workload(4, output=1, requests=8)), plan(gamma=2))
    assert (job.rounds, job.decode_s, job.tokens) == ((), 0, 8)
    assert job.finish_s == (60,) * 4 + (120,) * 4


def test_the_first_round_finds_an_empty_ring() -> None:
    case = exact_case(stories.workload(4, output=5, requests=1))
    decision = plan(weights="pinned", batch=1)
    pricer = RoundPricer(case, decision)
    shape = RoundShape(1, 4)
    # as drawn in test_schedule: the second round's first weights are there before the first round ends
    assert pricer.first(shape) == 37
    graph = lower_rounds(case, decision, shape, 2)
    assert pricer.steady(shape) == max(pricing.run(graph, case.machine)[1]) - 37 == 32
    job = simulate_job(case, decision)
    assert job.decode_s == 37 + 3 * 32


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_plain_decoding_takes_a_round_per_token_after_the_first(strategy: str) -> None:
    case = exact_case(stories.workload(4, output=9, requests=8))
    job = simulate_job(case, plan(strategy, batch=4 if strategy != "serial" else 8))
    assert len(job.rounds) == 8
    assert {r.rows for r in job.rounds} == {8}


def test_stragglers_leave_a_batch_underfull() -> None:
    case = exact_case(stories.workload(4, output=40, requests=8), rate=0.6)
    job = simulate_job(case, plan(gamma=3, batch=8))
    needed = rounds_needed(case.acceptance, 3, 8, 39)
    assert [r.rows for r in job.rounds] == [int((needed > i).sum()) for i in range(needed.max())]
    ends = [r.end_s for r in job.rounds]
    assert job.finish_s == tuple(ends[n - 1] for n in needed)


# refilled batches


def test_a_newcomer_gets_its_first_token_from_the_pass_it_joins() -> None:
    case = exact_case(stories.workload(4, output=3, requests=3))
    job = simulate_job(case, plan(batch=2, refill=True))
    assert [(r.rows, r.joining, r.tokens) for r in job.rounds] == [
        (2, 0, 2),
        (2, 0, 2),
        (0, 4, 1),
        (1, 0, 1),
        (1, 0, 1),
    ]
    assert job.finish_s == (job.rounds[1].end_s,) * 2 + (job.rounds[4].end_s,)


def check(job: JobResult, case: Case, decision: Decision) -> None:
    """What holds for every job."""
    work, places = case.workload, decision.policy.in_flight
    assert job.tokens == work.requests * work.output_tokens
    prompts = sum(r.joining for r in job.rounds)
    if decision.policy.refill:
        prefilled = min(places, work.requests)
        assert prompts == (work.requests - prefilled) * work.prompt_tokens_mean
    else:
        prefilled, prompts = work.requests, 0
    assert sum(r.tokens for r in job.rounds) + prefilled == job.tokens
    assert all(r.rows + r.joining / work.prompt_tokens_mean <= places for r in job.rounds)
    times = [t for r in job.rounds for t in (r.start_s, r.end_s)]
    assert times == sorted(times)
    assert len(job.finish_s) == work.requests
    assert max(job.finish_s) == pytest.approx(job.makespan_s, rel=1e-12)
    ends = {r.end_s for r in job.rounds}
    assert work.output_tokens == 1 or set(job.finish_s) <= ends


@settings(max_examples=40)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    gamma=st.integers(0, 4),
    batch=st.integers(1, 5),
    refill=st.booleans(),
    requests=st.integers(1, 20),
    output=st.integers(1, 12),
    rate=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
)
def test_every_request_gets_all_its_tokens(
    strategy: str, gamma: int, batch: int, refill: bool, requests: int, output: int, rate: float
) -> None:
    case = exact_case(stories.workload(4, output, requests), rate)
    decision = plan(strategy, gamma=gamma, batch=batch, refill=refill, draft=stories.on_gpu("vram", 2))
    job = simulate_job(case, decision, grid=1.5)
    check(job, case, decision)


def test_refilling_keeps_every_place_taken_while_requests_wait() -> None:
    case = exact_case(stories.workload(4, output=20, requests=40), rate=0.7)
    decision = plan(gamma=3, batch=6, refill=True)
    job = simulate_job(case, decision)
    check(job, case, decision)
    started = 6
    for r in job.rounds:
        started += round(r.joining / 4)
        if started < 40:
            assert r.rows + r.joining / 4 == 6
    assert job.makespan_s < simulate_job(case, plan(gamma=3, batch=6)).makespan_s


def test_a_pass_takes_no_more_prompts_than_have_room() -> None:
    # prompts of 3000 tokens: two would bring more than 4096, so one joins at a time
    case = exact_case(stories.workload(3000, output=3, requests=8))
    decision = plan(batch=4, refill=True)
    job = simulate_job(case, decision)
    assert {r.joining for r in job.rounds} == {0, 3000}
    check(job, case, decision)


# the grid of shapes


def test_shapes_between_the_grids_points_cost_about_the_same() -> None:
    machine = stories.machine(gpu=stories.processor(1e5, 1e4), link=1e4)
    case = stories.case(machine, stories.model(), stories.workload(20, 50, 60, longest=200), draft=stories.model())
    decision = stories.decision(
        "serial", stories.layers(case.target, weights="pinned", kv="ram"), batch=16, gamma=3, draft=stories.on_gpu()
    )
    exact, fine = (simulate_job(case, decision, grid=grid).makespan_s for grid in (1 + 1e-6, GRID))
    assert fine == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("grid", [1 + 1e-6, GRID, SEARCH_GRID])
def test_rounding_moves_no_round_into_a_tail_or_out_of_it(grid: float) -> None:
    """Kernels take no time: a round takes 1 s a sequence, and 24 s more where four units are streamed."""
    case = stories.case(target=EVEN, work=stories.workload(4, output=5, requests=96))
    streamed, resident = stories.layers(EVEN, weights="pinned"), stories.layers(EVEN)
    policy = stories.decision("serial", streamed, batch=96).policy
    for few in (1, 3, 6, 24, 48):
        pricer = RoundPricer(case, Decision("serial", policy, streamed, (Tail(few, resident),)), grid)
        assert pricer.steady(RoundShape(few, 4)) == pytest.approx(few, rel=grid - 1 + 1e-6)
        assert pricer.steady(RoundShape(few + 1, 4)) == pytest.approx(few + 1 + 24, rel=grid - 1 + 1e-6)


@pytest.mark.parametrize("refill", [False, True])
def test_the_search_grid_is_close_to_the_fine_one(refill: bool) -> None:
    """Mixtral 8x7B on an RTX 4090: half of the experts' parts on the CPU's side of the link, attention on the CPU."""
    case = Case(
        machines.assemble(machine="env1"),
        read_config(profiles.find("model", "mixtral-8x7b")),
        profiles.workload("humaneval"),
        read_config(profiles.find("model", "mistral-7b")),
        stories.acceptance(0.7),
    )
    numbers: dict[str, Any] = {"gamma": 4, "batch": 48, "ring_slots": 3, "draft": stories.on_gpu("vram", 48)}
    layers = stories.layers(case.target, "cpu", "vram", ffn="pinned")
    decision = stories.decision("merged", layers, refill=refill, **numbers)
    coarse, fine = (simulate_job(case, decision, grid=grid).makespan_s for grid in (SEARCH_GRID, GRID))
    assert coarse == pytest.approx(fine, rel=0.03)


# what holds for any machine, model and placement


def seconds(graph: Graph, machine: Machine) -> float:
    return max(pricing.run(graph, machine)[1])


def critical_path(graph: Graph, machine: Machine) -> float:
    """The longest chain of dependencies and of tasks of one stream, nobody slowed."""
    durations, _ = pricing.price(graph, machine)
    ends: list[float] = []
    last: dict[str, float] = {}
    for task, duration in zip(graph.tasks, durations, strict=True):
        start = max([last.get(task.stream, 0.0), *(ends[i] for i in task.deps)])
        ends.append(start + duration)
        last[task.stream] = ends[-1]
    return max(ends)


rates = st.sampled_from([1e2, 1e3, 1e4, 1e5])


@st.composite
def situations(draw: st.DrawFn) -> tuple[Case, Decision]:
    bare = draw(st.booleans())
    machine = stories.machine(
        gpu=stories.processor(draw(rates), draw(rates), draw(st.sampled_from([0.0, 0.01]))),
        cpu=stories.processor(draw(rates), draw(rates), draw(st.sampled_from([0.0, 0.01]))),
        link=draw(rates),
        disk=draw(rates),
        bare=bare,
    )
    target = draw(models())
    homes = ["ram", "disk"] if bare else ["vram", "pinned", "pageable", "disk"]
    attention = "bare" if bare else draw(st.sampled_from(["gpu", "cpu", "cpu+projections"]))
    kv = "ram" if bare or attention != "gpu" else draw(st.sampled_from(["vram", "ram"]))
    placed = stories.layers(target, attention, draw(st.sampled_from(homes)), ffn=draw(st.sampled_from(homes)), kv=kv)
    gamma = draw(st.integers(0, 3))
    batch = draw(st.integers(1, 4))
    draft = (
        stories.on_cpu("ram", batch)
        if bare
        else draw(
            st.sampled_from(
                [stories.on_gpu("vram", batch), stories.on_gpu("ram"), stories.on_gpu("none"), stories.on_cpu()]
            )
        )
    )
    decision = stories.decision(
        draw(st.sampled_from(sorted(STRATEGIES))),
        placed,
        gamma=gamma,
        batch=batch,
        draft=draft,
        ring_slots=draw(st.integers(1, 4)),
        verify_micro_batches=draw(st.integers(1, batch)),
    )
    return stories.case(machine, target, draft=stories.model()), decision


@st.composite
def models(draw: st.DrawFn) -> Model:
    window = draw(st.none() | st.integers(1, 30))
    return stories.model(layers=draw(st.integers(1, 4)), heads=draw(st.sampled_from([1, 2, 4])), sliding_window=window)


def graphs(case: Case, decision: Decision) -> list[Graph]:
    shape = RoundShape(decision.policy.in_flight, 10)
    return [lower_rounds(case, decision, shape, 2), lower_prefill(case, decision, [4.0, 7.0, 5.0])]


@settings(max_examples=150)
@given(situations())
def test_simulated_time_lies_between_the_critical_path_and_the_serial_sum(situation: tuple[Case, Decision]) -> None:
    case, decision = situation
    for graph in graphs(case, decision):
        took = seconds(graph, case.machine)
        assert critical_path(graph, case.machine) <= took * (1 + 1e-9)
        assert took <= sum(pricing.price(graph, case.machine)[0]) * (1 + 1e-9)


@settings(max_examples=150)
@given(situations(), st.sampled_from(["gpu", "vram_bw", "cpu", "dram", "link", "disk"]))
def test_more_of_a_resource_never_costs_much(situation: tuple[Case, Decision], resource: str) -> None:
    """The same graph on a better machine is never slower where nothing is shared. Where streams share a pool, a copy or
    a kernel that is ready earlier can get in the way of one that matters more; that costs a few per cent at most."""
    case, decision = situation
    better = case.machine.scaled(**{resource: 2})
    for graph in graphs(case, decision):
        assert critical_path(graph, better) <= critical_path(graph, case.machine) * (1 + 1e-12)
        assert seconds(graph, better) <= seconds(graph, case.machine) * 1.1


def test_being_ready_earlier_can_cost_a_little() -> None:
    """The smallest such story: an activation that is ready at 2 takes half of the link from the weights; when it is
    ready at 4, the weights have passed. The kernel that waits for them ends at 7 and at 5."""

    def ends(ready: float) -> float:
        link = (("h2d", 1.0),)
        streams, times = ["cpu", "h2d.act", "h2d", "gpu"], [ready, 2.0, 4.0, 1.0]
        return engine.run(streams, times, [(), (0,), (), (2,)], [(), link, link, ()])[1][3]

    assert (ends(2), ends(4)) == (7, 5)
