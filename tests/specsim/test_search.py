"""A search hears every kind of plan, keeps what is fixed, orders what it found, and knows when nothing fits."""

from __future__ import annotations

from dataclasses import replace

from specsim import api
from specsim.case import Case
from specsim.decision import homes_of
from specsim.memory import peak_items, ring_bytes
from specsim.model import FeedForward
from specsim.planner.candidates import Fixed, make
from specsim.planner.evaluate import Evaluator
from specsim.planner.options import draft_loads
from specsim.planner.search import Search
from specsim.units import GiB
from specsim.workload import Workload
from tests.specsim import stories, worlds

WORK = Workload("few", "few", 100, 100, 100, 16, 16)
DRAFT = worlds.decoder("draft", 1, 512, FeedForward(2048))


def streaming(*, draft: bool = True, requests: int = 16) -> Case:
    """A model of 5 GiB on a small GPU."""
    cpu, gpu = (worlds.processor(*rates, worlds.RISING, 5e-6) for rates in ((1e12, 5e10), (5e13, 5e11)))
    base = stories.machine(gpu=gpu, cpu=cpu, link=1.6e10, disk=5e9, vram=3 * GiB, ram=64 * GiB)
    target = worlds.decoder("target", 8, 4096, FeedForward(24576))
    case = Case(base, target, replace(WORK, requests=requests))
    return replace(case, draft=DRAFT, acceptance=worlds.accepting(0.8)) if draft else case


def test_every_kind_of_plan_is_heard_and_the_best_comes_first() -> None:
    result = Search(streaming()).run()
    kinds = {(f.decision.strategy, f.decision.policy.gamma > 0) for f in result.found}
    assert kinds == {(s, speculative) for s in ("serial", "merged", "interleaved") for speculative in (True, False)}
    rates = [f.tokens_per_second for f in result.found]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] <= result.bound
    assert result.gap >= 0.0


def test_what_is_fixed_is_kept_in_every_plan() -> None:
    fixed = Fixed(strategy="merged", gamma=3, batch=4, attention="cpu", draft_kv="ram", draft_batch=2, ring_slots=2)
    found = Search(streaming(), fixed).run().found
    assert found
    for f in found:
        policy = f.decision.policy
        assert (f.decision.strategy, policy.gamma, policy.batch, policy.ring_slots) == ("merged", 3, 4, 2)
        assert policy.draft is not None
        assert (policy.draft.kv, policy.draft.micro_batch) == ("ram", 2)
        assert {place.attention.processor for place in f.decision.layers} == {"cpu"}


def test_caches_and_whole_layers_stay_where_they_are_fixed() -> None:
    found = Search(streaming(draft=False), Fixed(kv="vram", placement="layers")).run().found
    assert found
    for f in found:
        assert {place.attention.kv for place in f.decision.layers} == {"vram"}
        assert {len(homes_of(place)) for place in f.decision.layers} == {1}
    assert len({home for f in found for place in f.decision.layers for home in homes_of(place)}) > 1


def test_speculative_plans_alone_can_be_asked_for() -> None:
    assert all(f.decision.policy.gamma > 0 for f in Search(streaming(), speculate=True).run().found)


def test_weights_stay_where_they_fit_only_without_a_ring() -> None:
    """Nothing would ever come through it."""
    asked = {"machine": "desktop-cpu", "target": "mistral-7b", "prompt_tokens": 64, "output_tokens": 32, "requests": 4}
    whole = api.plan(**asked, ram=200e9)
    ram = max(sum(memories["ram"].values()) for memories in peak_items(whole.case, whole.decision).values())
    again = api.plan(**asked, ram=ram)
    assert {home for place in again.decision.layers for home in homes_of(place)} == {"ram"}
    less = api.plan(**asked, ram=ram - ring_bytes(whole.case, whole.decision.policy))
    assert "disk" in {home for place in less.decision.layers for home in homes_of(place)}


def test_nothing_is_found_where_nothing_fits() -> None:
    case = streaming().on(replace(streaming().machine, vram_budget_bytes=1e6))
    result = Search(case).run()
    assert (result.found, result.feasible, result.gap) == ((), 0, 0.0)


def test_a_plan_for_few_sequences_is_found_however_many_requests_wait() -> None:
    """Their caches of 125 MiB each have to stay in memory, which takes a dozen: all larger batches fit nowhere."""
    case = streaming(draft=False, requests=1000)
    case = replace(case, workload=Workload("long", "long", 4000, 4000, 4000, 16, 1000))
    case = case.on(replace(case.machine, ram_budget_bytes=1.5 * GiB))
    evaluator = Evaluator(case)
    fits = {n: evaluator.place(make(case, "serial", 0, n, 3, "all", Fixed())) is not None for n in (1, 2, 48, 1000)}
    assert fits == {1: True, 2: True, 48: False, 1000: False}
    found = Search(case).run().found
    assert found
    assert 2 <= found[0].decision.policy.in_flight < 48


def test_progress_is_told() -> None:
    said: list[str] = []
    Search(streaming(draft=False), Fixed(batch=16, strategy="serial"), said.append).run()
    assert said[0] == "bounding 1 policies"
    assert "placing serial, no speculation, 1 x 16" in said
    assert "simulating serial, no speculation, 1 x 16" in said


def test_prefill_sweeps_are_cut_where_that_leaves_room_for_weights() -> None:
    """16 prompts of 200 tokens fit at once, but what their activations take could hold weights in all of 16 rounds; and
    a quarter of them computes for longer than the weights take to stream."""
    case = streaming(draft=False)
    cpu = worlds.processor(1e12, 5e10, worlds.RISING, 5e-6)
    bare = stories.machine(bare=True, cpu=cpu, disk=5e9, ram=1.5 * GiB)
    case = Case(bare, case.target, replace(WORK, prompt_tokens_min=200, prompt_tokens_mean=200, prompt_tokens_max=200))
    best = Search(case).run().found[0]
    whole = Search(case, Fixed(prefill_batch=16)).run().found[0]
    assert best.decision.policy.prefill_batch < 16
    assert best.tokens_per_second > 1.01 * whole.tokens_per_second


def test_loads_of_drafting_and_of_its_transition_are_kept_apart() -> None:
    """With one batch of as many sequences as candidates, both are asked for by the same numbers."""
    case = streaming()
    candidate = make(case, "serial", 8, 8, 3, "all", Fixed())
    evaluator = Evaluator(case)
    for choice in evaluator.problem(candidate).drafts:
        drafting = draft_loads(case, candidate.policy, choice.policy, evaluator.context)
        assert choice.drafting == drafting
        assert choice.transition != drafting


def test_a_climb_does_not_end_at_a_step_that_the_other_kind_of_plan_beats() -> None:
    """At 8 sequences speculation promises twice as much, at 22 plain decoding is faster than all that speculates."""
    case = api.case(
        machine="desktop-cpu", ram=8 * GiB, target="llama-3.1-8b", draft="llama-3.2-1b", workload="chat", requests=64
    )
    serial = Fixed(strategy="serial")
    both, plain = (Search(c, serial).run().found[0].tokens_per_second for c in (case, case.plain()))
    assert both >= 0.99 * plain
