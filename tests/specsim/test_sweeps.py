"""Sweeps: as many sequences together as the plan says, and never more tokens than its memory counts."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from specsim.decision import Policy
from specsim.positions import admitted, sweep_rows, sweep_tokens
from specsim.schedule.sweeps import deal, fullest, sweeps
from tests.specsim import stories

CASE = stories.case(work=stories.workload(10, output=6, requests=8))


def policy(batch: int, micro_batches: int = 1, kv_positions: int | None = 100) -> Policy:
    return Policy(
        0, 8, 1, batch, ring_slots=2, prefill_micro_batches=micro_batches, refill=False, kv_positions=kv_positions
    )


def cut(lengths: Sequence[int], how: Policy) -> list[list[int]]:
    return [list(lengths[sweep]) for sweep in sweeps(CASE, how, lengths)]


def test_prompts_are_swept_as_many_at_a_time_as_planned() -> None:
    assert cut([10] * 8, policy(3)) == [[10] * 3, [10] * 3, [10] * 2]
    assert cut([], policy(3)) == []


def test_restored_ones_are_longer_so_fewer_make_a_sweep() -> None:
    assert cut([15, 15, 10, 5, 15], policy(3)) == [[15, 15], [10, 5, 15]]
    assert cut([16, 10], policy(1)) == [[16], [10]]


def test_no_micro_batch_is_fuller_than_one_of_prompts() -> None:
    assert sweep_rows(CASE.workload, policy(4, 2)) == 20
    assert cut([16, 16, 8], policy(4, 2)) == [[16, 16], [8]]


def test_sweeps_have_no_more_than_can_begin_together() -> None:
    # 16 places each, and 11 for the last: a prompt and the first token
    assert [admitted(CASE.workload, policy(8, kv_positions=room)) for room in (16, 26, 27, 45)] == [1, 1, 2, 3]
    assert cut([10] * 6, policy(8, kv_positions=45)) == [[10] * 3, [10] * 3]


def test_without_a_cap_nothing_is_counted_as_restored() -> None:
    assert sweep_tokens(CASE.workload, policy(1, kv_positions=None)) == 10


@given(st.lists(st.integers(1, 16), max_size=20), st.integers(1, 8), st.integers(1, 4))
def test_no_sweep_exceeds_the_plan(lengths: list[int], batch: int, micro_batches: int) -> None:
    how = policy(batch, min(batch, micro_batches))
    cuts = cut(lengths, how)
    assert [length for sweep in cuts for length in sweep] == lengths
    for sweep in cuts:
        assert len(sweep) <= batch
        assert sum(sweep) <= sweep_tokens(CASE.workload, how)
        assert fullest(sweep, how) <= max(sweep_rows(CASE.workload, how), max(sweep))


def test_sequences_are_dealt_longest_first() -> None:
    assert deal([1, 5, 3, 3], 2) == [[0, 1], [2, 3]]
