"""What a search looks at: the same policies on every machine, plain decoding among them."""

from __future__ import annotations

import pytest

from specsim.case import Case
from specsim.errors import InputError
from specsim.hardware import Machine
from specsim.model import FeedForward
from specsim.planner.candidates import GAMMAS, KV_PIECE, PREFILL_TOKENS, Candidate, Fixed, candidates, make, part_bytes
from specsim.units import GiB, KiB, MiB
from tests.specsim import stories

DRAFTED = stories.case(work=stories.workload(requests=10), draft=stories.even(vocab=10))


def policies(fixed: Fixed | None = None) -> list[Candidate]:
    return list(candidates(DRAFTED, fixed or Fixed()))


def test_a_cache_in_vram_is_not_met_by_the_cpu() -> None:
    with pytest.raises(InputError, match="attention 'cpu' meets no cache in VRAM"):
        Fixed(kv="vram", attention="cpu")


def test_every_strategy_is_looked_at_with_every_gamma_and_without_speculation() -> None:
    looked_at = {(c.strategy, c.policy.gamma) for c in policies()}
    assert looked_at == {(s, gamma) for s in ("serial", "merged", "interleaved") for gamma in (0, *GAMMAS)}
    assert len(policies()) == len(set(policies()))


def test_without_a_draft_every_policy_is_plain() -> None:
    assert {c.policy.gamma for c in candidates(stories.case(), Fixed())} == {0}


def test_an_acceptance_alone_is_drafting_from_the_text() -> None:
    ngram = Case(stories.machine(), stories.model(), stories.workload(), acceptance=stories.acceptance())
    found = list(candidates(ngram, Fixed()))
    assert {c.policy.gamma for c in found} == {0, *GAMMAS}
    assert {c.policy.draft for c in found} == {None}


@pytest.mark.parametrize(
    ("machine", "size"),
    [
        (stories.machine(vram=80.0 * GiB, ram=1.0 * GiB), 512 * MiB),
        (stories.machine(vram=23.0 * GiB, ram=1.0 * GiB), 256 * MiB),
        (stories.machine(vram=8.0 * GiB), 128 * MiB),
        (stories.machine(vram=8.0 * GiB - 1), 64 * MiB),
        (stories.machine(bare=True, ram=3.0 * GiB), 32 * MiB),
        (stories.machine(bare=True, ram=16.0 * MiB), 256 * KiB),
        (stories.machine(vram=1.0), 64 * KiB),
    ],
)
def test_parts_fit_the_fast_memory(machine: Machine, size: int) -> None:
    """A power of two, at most a sixty-fourth of the budget."""
    case = stories.case(machine)
    assert part_bytes(case) == size
    assert {c.policy.part_bytes for c in candidates(case, Fixed())} == {size}


def test_batches_reach_up_to_all_requests_and_divide_them_evenly() -> None:
    sizes = sorted({c.policy.in_flight for c in policies() if c.strategy == "serial"})
    assert sizes == [1, 2, 3, 4, 5, 6, 8, 10]  # the grid, and ten shared by 1, 2, 3 and 4 batches
    assert sorted({c.policy.batch for c in policies() if c.strategy == "merged"}) == [1, 2, 3, 4, 5]


def test_a_better_machine_is_offered_the_same_policies() -> None:
    better = DRAFTED.on(DRAFTED.machine.scaled(gpu=2.0, link=2.0, vram=2.0, ram=2.0, disk=2.0))
    assert list(candidates(better, Fixed())) == policies()


def test_what_is_fixed_is_kept() -> None:
    kept = policies(Fixed(strategy="merged", gamma=3, batch=4, ring_slots=5, refill=False))
    assert {(c.strategy, c.policy.gamma, c.policy.batch, c.policy.ring_slots, c.policy.refill) for c in kept} == {
        ("merged", 3, 4, 5, False)
    }


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("strategy", "magic", "unknown strategy 'magic'"),
        ("gamma", -1, "gamma is -1"),
        ("batch", 0, "batch is 0"),
        ("draft_kv", "disk", "unknown draft_kv 'disk'"),
    ],
)
def test_what_cannot_be_fixed_says_why(field: str, value: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        Fixed(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"--fix {field}: ")


def test_places_are_refilled_while_requests_wait() -> None:
    assert make(DRAFTED, "serial", 0, 9, 3, "all", Fixed()).policy.refill
    assert not make(DRAFTED, "serial", 0, 10, 3, "all", Fixed()).policy.refill
    assert not make(DRAFTED, "merged", 0, 5, 3, "all", Fixed()).policy.refill


def test_visiting_caches_come_in_pieces() -> None:
    wide = stories.model(kv_heads=2, head_dim=2**20)  # 8 MiB of K and V a position
    case = stories.case(target=wide, work=stories.workload(31, 1, 4))  # 32 positions of 4 sequences: 1 GiB
    policy = make(case, "serial", 0, 4, 3, "all", Fixed()).policy
    assert KV_PIECE == 2**29
    assert policy.verify_micro_batches == 2
    assert make(case.on(stories.machine(bare=True)), "serial", 0, 4, 3, "all", Fixed()).policy.verify_micro_batches == 1


def test_a_long_prefill_is_cut_into_micro_batches() -> None:
    case = stories.case(work=stories.workload(5000, 5, 10))
    policy = make(case, "serial", 0, 10, 3, "all", Fixed()).policy
    assert policy.prefill_batch == 10
    assert policy.prefill_micro_batches == -(-50_000 // PREFILL_TOKENS)


def test_a_small_memory_prefills_fewer_at_once() -> None:
    case = stories.case(stories.machine(vram=1e6), work=stories.workload(100, 5, 16))
    # 800 tokens take 3 * 8 B of hidden states, 18 * 2 B of heads and 32 * 2 B of FFN each: 0.1 MB; 1600 twice that.
    assert make(case, "serial", 0, 16, 3, "all", Fixed()).policy.prefill_batch == 16
    assert make(case.on(stories.machine(vram=5e5)), "serial", 0, 16, 3, "all", Fixed()).policy.prefill_batch == 8


def test_a_prefill_sweep_can_be_cut_further() -> None:
    case = stories.case(stories.machine(vram=5e5), work=stories.workload(100, 5, 16))
    sweeps = [make(case, "serial", 0, 16, 3, "all", Fixed(), cuts).policy.prefill_batch for cuts in (1, 2, 3, 16)]
    assert sweeps == [8, 4, 3, 1]
    assert make(case, "serial", 0, 16, 3, "all", Fixed(prefill_batch=7), 2).policy.prefill_batch == 7


def test_experts_are_fetched_on_demand_only_where_a_pass_leaves_some_alone() -> None:
    target = stories.even(family="mixtral", ffn=FeedForward(2, experts=8, top_k=1))
    case = stories.case(target=target, work=stories.workload(requests=64))
    fetches = {
        size: {c.policy.expert_fetch for c in candidates(case, Fixed(strategy="serial", batch=size))}
        for size in (1, 16, 64)
    }
    assert fetches == {1: {"all", "routed"}, 16: {"all", "routed"}, 64: {"all"}}  # used: 1/8, 88 %, 99.98 %


def test_labels_say_what_differs() -> None:
    assert make(DRAFTED, "merged", 4, 5, 3, "all", Fixed()).label == "merged, gamma 4, 2 x 5"
    plain = make(DRAFTED, "serial", 0, 10, 3, "routed", Fixed()).label
    assert plain == "serial, no speculation, 1 x 10, experts on demand"
