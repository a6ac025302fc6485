"""Peaks of every memory, item by item, worked out by hand for the tiny model.

`stories.model`, as held: attention 384 bytes, FFN 192 (one part), head 192, embedding 128; hidden states 8 bytes and K
and V of a layer 12 bytes per token. `stories.workload`: prompts of 4 tokens, 5 tokens of output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specsim import memory, positions
from specsim.attending import attention_bytes
from specsim.case import Case
from specsim.decision import Decision, Policy
from specsim.errors import InputError
from specsim.memory import PHASES
from specsim.model import FeedForward
from specsim.positions import DRAFT_TOKENS, JOIN_TOKENS, LOGITS_ROWS
from specsim.workload import prompt_lengths
from tests.specsim import stories

DRAFT = stories.model(name="draft", layers=1)
DRAFT_BYTES = 384 + 192 + 192 + 128.0
SLOT = 6 * 2 * 4096.0  # the attention's six tensors, each in two blocks


def plan(strategy: str = "serial", attention: str = "gpu", weights: str = "vram", **policy: Any) -> Decision:
    return stories.decision(strategy, stories.layers(stories.model(), attention, weights), **policy)


def items(case: Case, decision: Decision, phase: str, where: str) -> dict[str, float]:
    return memory.peak_items(case, decision)[phase][where]


def spaces(tokens: float, head_rows: float, *, hidden: float = 1, micro: int = 1) -> dict[str, float]:
    """Workspaces of the tiny model: heads 2 * 2 + 2 * 1 of 3, FFN 2 h + 3 f = 32 elements, 10 logits of 2 + 4 bytes."""
    parts = {
        "hidden states": 3 * 8 * tokens * hidden,
        "attention workspace": tokens / micro * 6 * 3 * 2,
        "ffn workspace": tokens * 32 * 2,
        "logits": head_rows * 60,
    }
    return parts | {"allocator rounding": 0.03 * sum(parts.values())}


def in_turns(tokens: float, attending: float, *, hidden: float = 1) -> dict[str, float]:
    """Workspaces where the CPU does all: of 2 x 2 + 4 bytes a hidden element, and of the largest of three."""
    parts = {"hidden states": 8 * 4 * tokens * hidden, "workspace": attending}
    return parts | {"allocator rounding": 0.03 * sum(parts.values())}


def test_attention_on_the_cpu_counts_what_it_gathers_and_scores() -> None:
    """12 queries of a tile of 16, 128 positions in whole blocks, as worked out for the demo's target: 6 sequences of 4
    rows, 6 heads, 2 of K and V, of 32."""
    model = replace(stories.model(), heads=6, kv_heads=2, head_dim=32)
    scores, folded = 6 * 2 * 16 * 128 * 4, 6 * 16 * 64 * 4
    packed, gathered = 24 * 32 * 2 * (18 + 4), 6 * 128 * 64 * 2 * 4
    assert attention_bytes(model, 24, 6, 96) == packed + gathered + 2 * folded + 3 * scores + scores / 2


def test_a_long_sequence_attends_alone() -> None:
    """K of 3 elements a position: 500,000 of them are 166,666 positions."""
    short, long = (attention_bytes(stories.model(), 2, 2, positions) for positions in (80_000, 160_000))
    assert long == pytest.approx(short, rel=0.01)


# what the caches hold


def test_caches_hold_prompts_outputs_and_candidates() -> None:
    assert positions.kv_positions(stories.workload(), sequences=3, gamma=2) == 3 * (4 + 5 + 2)


def test_caches_are_sized_for_the_longest_requests() -> None:
    work = stories.workload(10, 5, requests=4, longest=40)
    lengths = sorted(prompt_lengths(work).tolist(), reverse=True)
    assert lengths[0] > 10
    assert [positions.kv_positions(work, n, 1) for n in (1, 2, 4)] == [sum(lengths[:n]) + n * 6 for n in (1, 2, 4)]
    assert positions.kv_positions(work, 1, 1) > 10 + 6


def test_there_are_no_more_sequences_than_requests() -> None:
    work = stories.workload(requests=3)
    assert positions.kv_positions(work, 100, 0) == positions.kv_positions(work, 3, 0)


def test_capped_caches_hold_fewer_sequences_than_there_are_places() -> None:
    """Each begins with two blocks: 64 tokens, its first token and 3 candidates. Whoever comes later may get no more
    than it needs."""
    work = stories.workload(prompt=64, output=96, requests=12)
    capped = plan(gamma=3, batch=12, kv_positions=782).policy
    assert positions.decoding(work, capped) == positions.admitted(work, capped) == 6
    assert positions.decoding(work, plan(gamma=3, batch=12, kv_positions=782, refill=True).policy) == 782 // 68
    assert positions.decoding(work, plan(gamma=3, batch=12).policy) == 12
    two = plan("interleaved", gamma=3, batch=6, kv_positions=782).policy
    assert positions.decoding(work, two) == 3


def test_capped_caches_are_attended_to_by_many_short_or_few_long_sequences() -> None:
    """The longest are 163 at their ends. Of 420 positions 3 sequences have three blocks each, of 320 two."""
    bare = stories.machine(bare=True)
    case = stories.case(bare, work=stories.workload(prompt=64, output=96, requests=12))
    shapes = {420: [(3, 163)], 320: [(2, 163)], 163: [(1, 163)], None: [(12, 163)]}
    for cap, ways in shapes.items():
        policy = plan(attention="bare", weights="ram", gamma=3, batch=12, kv_positions=cap).policy
        taken = max(attention_bytes(case.target, n * 4, n, length) for n, length in ways)
        assert memory.fixed_items(case, policy)["decode"]["ram"]["workspace"] == taken


# everything resident


def test_plain_decoding_with_everything_in_vram() -> None:
    case, decision = stories.case(), plan(batch=2)
    held = {"head": 192.0, "weights": 2 * (384 + 192.0), "kv": 2 * 12 * 2 * (4 + 5.0)}
    assert items(case, decision, "prefill", "vram") == held | spaces(8, 2)
    assert items(case, decision, "transition", "vram") == held
    assert items(case, decision, "decode", "vram") == held | spaces(2, 2)
    for phase in PHASES:
        assert items(case, decision, phase, "ram") == {"embedding": 128}
        assert items(case, decision, phase, "disk") == {}


def test_without_a_gpu_ram_is_the_fast_memory() -> None:
    case = stories.case(stories.machine(bare=True))
    decision = plan(attention="bare", weights="ram", ring_slots=0)
    held = {"head": 192.0, "embedding": 128.0, "weights": 1152.0, "kv": 2 * 12 * 9.0}
    assert items(case, decision, "decode", "ram") == held | in_turns(1, attention_bytes(case.target, 1, 1, 9))
    assert set(memory.peak_items(case, decision)["decode"]) == {"ram", "disk"}


def test_a_tied_embedding_in_ram_is_the_head() -> None:
    target = stories.model(tied=True)
    bare, full = stories.case(stories.machine(bare=True), target), stories.case(target=target)
    assert "embedding" not in items(bare, plan(attention="bare", weights="ram"), "decode", "ram")
    assert items(full, plan(), "decode", "ram")["embedding"] == 128


def test_homes_of_weights() -> None:
    case = stories.case()
    pinned = memory.placed_items(case, plan().policy, stories.layers(case.target, weights="pinned", ffn="pageable"))
    assert pinned["decode"]["ram"] == {"pinned weights": 2 * 384, "pageable weights": 2 * 192}
    disk = memory.placed_items(case, plan(ring_slots=3).policy, stories.layers(case.target, weights="disk"))
    assert disk["prefill"]["disk"] == {"weights": 2 * 576}
    assert disk["prefill"]["ram"] == {"disk staging": 3 * SLOT}
    bare = stories.case(stories.machine(bare=True))
    assert memory.placed_items(bare, plan().policy, stories.layers(case.target, "bare", "disk"))["decode"]["ram"] == {
        "kv": 2 * 12 * 9,
        "ring": 2 * SLOT,
    }


def test_a_ring_is_there_as_soon_as_anything_streams() -> None:
    case, policy = stories.case(), plan(ring_slots=3).policy
    resident, streamed = stories.layers(case.target), stories.layers(case.target, ffn="pinned")
    assert "ring" not in memory.placed_items(case, policy, resident)["decode"]["vram"]
    for phase in PHASES:
        assert memory.placed_items(case, policy, (resident[0], streamed[1]))[phase]["vram"]["ring"] == 3 * SLOT


# streamed caches


def test_visiting_caches_have_two_buffers() -> None:
    case = stories.case(work=stories.workload(requests=8))
    micro = {"verify_micro_batches": 2, "prefill_micro_batches": 2}
    decision = stories.decision("serial", stories.layers(case.target, kv="ram"), batch=4, **micro)
    # a micro-batch: half of the batch's 4 * 9 positions and, as sequences are dealt whole, one sequence more
    for phase in memory.PHASES:  # they stay: the executor allocates them once
        assert items(case, decision, phase, "vram")["kv staging"] == 2 * 12 * (4 * 9 / 2 + 9)
    assert items(case, decision, "decode", "ram")["kv"] == 2 * 12 * 4 * 9
    assert "kv" not in items(case, decision, "decode", "vram")


# batches and newcomers


def test_batches_of_one_pass_share_all_workspaces_but_the_hidden_states() -> None:
    case = stories.case(work=stories.workload(requests=8))
    merged = items(case, plan("merged", batch=2), "decode", "vram")
    assert {name: merged[name] for name in spaces(2, 2)} == spaces(2, 2, hidden=2)
    assert merged["kv"] == 2 * 12 * 4 * 9


def test_newcomers_bring_their_prompts() -> None:
    """Of all places of a batch, as many as may join one pass, or one that goes on with its output."""
    decoding = items(stories.case(), plan(batch=3, refill=True), "decode", "vram")
    assert {name: decoding[name] for name in spaces(1, 1)} == spaces(3 + 3 * 4, 3 + 3 * 4)
    one = items(stories.case(), plan(batch=2, refill=True), "decode", "vram")
    assert {name: one[name] for name in spaces(1, 1)} == spaces(2 + 4 + 5, 2 + 4 + 5)
    many = stories.case(work=stories.workload(prompt=40, requests=200))
    decoding = items(many, plan(batch=200, refill=True), "decode", "vram")
    assert {name: decoding[name] for name in spaces(1, 1)} == spaces(200 + JOIN_TOKENS, LOGITS_ROWS)
    assert positions.join_tokens(stories.workload(5000)) == 5000


def test_workspaces_stop_growing_at_a_chunk() -> None:
    small, large = (memory.workspaces(stories.model(), tokens, 1, tokens) for tokens in (8192, 81920))
    assert (large["ffn workspace"], large["logits"]) == (small["ffn workspace"], small["logits"])
    assert large["hidden states"] == 10 * small["hidden states"]


def test_the_fullest_expert_part_gets_twice_its_share() -> None:
    sizes = stories.moe()  # 4 parts, 2 of 4 experts per token, 2 h + 3 f = 5 * 8192
    assert memory.workspaces(sizes, 100, 1, 1)["ffn workspace"] == 100 * 2 / 4 * 2 * 5 * 8192 * 2
    one = stories.model(ffn=FeedForward(8, experts=4, top_k=2))  # a single part gets everything, not twice that
    assert memory.workspaces(one, 100, 1, 1)["ffn workspace"] == 100 * 2 * (2 * 4 + 3 * 8) * 2


# the draft


def draft_plan(**changes: Any) -> Policy:
    numbers = {"batch": 2, "gamma": 2, "draft": stories.on_gpu("vram", 2)}
    return plan("merged", **numbers | changes).policy


def drafting(policy: Policy, *, bare: bool = False) -> memory.Peaks:
    machine = stories.machine(bare=bare)
    case = stories.case(machine, work=stories.workload(requests=8), draft=DRAFT)
    assert policy.draft is not None
    return memory.draft_items(case, policy, policy.draft)


def test_a_draft_that_keeps_its_cache_in_vram() -> None:
    peaks = drafting(draft_plan())
    weights, cache = {"draft weights": DRAFT_BYTES}, {"draft kv": 12 * 4 * (4 + 5 + 2.0)}
    assert peaks["prefill"]["vram"] == weights
    assert peaks["decode"]["vram"] == weights | cache | {"draft workspace": sum(spaces(2, 2).values())}
    assert peaks["transition"]["vram"] == weights | cache | {"draft workspace": sum(spaces(8, 2).values())}
    assert peaks["decode"]["ram"] == {}


def test_a_draft_that_waits_lies_in_ram_meanwhile() -> None:
    peaks = drafting(draft_plan(draft=stories.on_gpu("vram", 2, waits=True)))
    assert peaks["prefill"]["vram"] == {}
    assert peaks["transition"]["vram"]["draft weights"] == DRAFT_BYTES
    assert [peaks[phase]["ram"] for phase in PHASES] == [{"draft weights (to load)": DRAFT_BYTES}] * 3


@pytest.mark.parametrize(("micro", "batches", "buffers"), [(2, 1, 1), (2, 2, 2), (1, 1, 2)])
def test_a_streamed_draft_cache_visits_in_two_buffers_unless_there_is_but_one_micro_batch(
    micro: int, batches: int, buffers: int
) -> None:
    peaks = drafting(draft_plan(draft=stories.on_gpu("ram", micro), batches=batches))
    positions = 22 if micro == 2 else 22 / 2 + 11
    assert peaks["decode"]["vram"]["draft kv (working set)"] == buffers * 12 * positions
    assert peaks["decode"]["ram"]["draft kv"] == 12 * 2 * batches * 11


def test_a_draft_without_a_cache_makes_it_anew() -> None:
    peaks = drafting(draft_plan(draft=stories.on_gpu("none", 2)))
    assert peaks["decode"]["vram"]["draft kv (working set)"] == 12 * 22
    assert peaks["decode"]["vram"]["draft workspace"] == pytest.approx(sum(spaces(22, 2).values()))
    assert peaks["decode"]["ram"] == {}


def test_newcomers_bring_their_prompts_to_the_draft_too() -> None:
    peaks = drafting(draft_plan(refill=True))
    assert peaks["decode"]["vram"]["draft workspace"] == pytest.approx(sum(spaces(2 + 4 + 5, 2).values()))
    many = stories.case(work=stories.workload(prompt=40, requests=200), draft=DRAFT)
    policy = draft_plan(refill=True, batch=200)
    assert policy.draft is not None
    peaks = memory.draft_items(many, policy, policy.draft)
    assert peaks["decode"]["vram"]["draft workspace"] == pytest.approx(sum(spaces(DRAFT_TOKENS, 2).values()))


def test_a_draft_on_the_cpu_takes_no_vram() -> None:
    peaks = drafting(draft_plan(draft=stories.on_cpu("ram", 2)))
    assert all(peaks[phase]["vram"] == {} for phase in PHASES)
    assert peaks["decode"]["ram"]["draft weights"] == DRAFT_BYTES
    bare = drafting(draft_plan(draft=stories.on_cpu("ram", 2)), bare=True)["decode"]["ram"]
    assert bare == peaks["decode"]["ram"] | {"draft workspace": bare["draft workspace"]}
    assert bare["draft workspace"] < peaks["decode"]["ram"]["draft workspace"]  # in turns with the target


# sums


def test_peaks_are_fixed_and_placed_and_draft_items_together() -> None:
    case = stories.case(work=stories.workload(requests=8), draft=DRAFT)
    decision = plan("merged", "cpu", "pinned", batch=2, gamma=2, draft=stories.on_gpu("ram", 1))
    draft = decision.policy.draft
    assert draft is not None
    parts = [
        memory.fixed_items(case, decision.policy),
        memory.placed_items(case, decision.policy, decision.layers),
        memory.draft_items(case, decision.policy, draft),
    ]
    peaks = memory.totals(memory.peak_items(case, decision))
    assert list(peaks) == list(PHASES)
    for phase in PHASES:
        assert list(peaks[phase]) == ["vram", "ram", "disk"]
        for where, total in peaks[phase].items():
            assert total == pytest.approx(sum(memory.totals(part)[phase][where] for part in parts), rel=1e-15)


def test_shortfall_names_the_worst() -> None:
    peaks: memory.Peaks = {
        "prefill": {"vram": {"a": 30.0, "b": 5.0}, "ram": {"c": 10.0}},
        "decode": {"vram": {"a": 20.0}, "ram": {"c": 50.0}},
    }
    assert memory.shortfall({"vram": 35, "ram": 50}, peaks) is None
    assert memory.shortfall({"vram": 34, "ram": 50}, peaks) == ("prefill", "vram", 1)
    assert memory.shortfall({"vram": 15, "ram": 20}, peaks) == ("decode", "ram", 30)


def test_a_draft_needs_its_acceptance() -> None:
    with pytest.raises(InputError, match="draft: draft 'draft' has no acceptance; give its acceptance"):
        Case(stories.machine(), stories.model(), stories.workload(), DRAFT)


def test_drafting_from_the_text_takes_room_for_candidates_only() -> None:
    plain, drafting = (plan(batch=4, gamma=gamma) for gamma in (0, 2))
    case = Case(stories.machine(), stories.model(), stories.workload(), acceptance=stories.acceptance())
    assert items(case, drafting, "decode", "vram").keys() == items(case, plain, "decode", "vram").keys()
    more = items(case, drafting, "decode", "vram")["kv"] - items(case, plain, "decode", "vram")["kv"]
    assert more == 2 * 4 * 2 * 12  # layers, sequences, candidates, bytes of K and V


# chunks


def test_smaller_chunks_take_less() -> None:
    """64 tokens in chunks of 32, logits of 32 rows instead of 64: of 16 sequences with 3 candidates each."""
    case = stories.case(work=stories.workload(requests=16), draft=stories.even(vocab=10))
    decoding = items(case, plan(batch=16, gamma=3, chunk_tokens=32), "decode", "vram")
    wanted = spaces(64, 32) | {"ffn workspace": 32 * 32 * 2.0}
    wanted["allocator rounding"] = 0.03 * sum(size for item, size in wanted.items() if item != "allocator rounding")
    assert {name: decoding[name] for name in wanted} == pytest.approx(wanted)


def test_a_dense_ffn_in_parts_keeps_what_lies_between_them_of_all_tokens() -> None:
    model = stories.model()
    chunked, whole = (
        memory.workspaces(model, 1000, 1, 0, part_bytes=1, chunk_tokens=chunk)["ffn workspace"] for chunk in (100, 1000)
    )
    assert whole - chunked == 900 * (2 * model.hidden + 2 * model.ffn.width) * 2


def test_rows_of_an_expert_are_those_that_a_chunk_asks_the_fullest_for() -> None:
    assert positions.chunk_rows(stories.model().ffn, 3, 256) == 256
    assert [positions.chunk_rows(FeedForward(8, 8, 2), parts, 256) for parts in (1, 2, 8)] == [512, 512, 128]


def test_logits_come_by_whole_sequences() -> None:
    rows = [positions.logits_rows(Policy(40, 4, 1, 4, 2, chunk_tokens=chunk)) for chunk in (32, 100, 8192)]
    assert rows == [41, 100, LOGITS_ROWS]


def test_the_draft_reads_prompts_by_chunks_too() -> None:
    assert drafting(draft_plan(chunk_tokens=5))["transition"]["vram"]["draft workspace"] == pytest.approx(
        sum(spaces(5, 2).values())
    )
