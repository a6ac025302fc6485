"""Shapes of passes against counting (query, key) pairs one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specsim.cost.shapes import PassShape, decode_shape, prefill_shape


def seen(position: int, window: int | None) -> set[int]:
    """The positions that a query at `position` attends to: itself and those before it, the last `window` of them."""
    return set(range(0 if window is None else max(0, position - window + 1), position + 1))


def counted(first: int, past: int, window: int | None) -> tuple[int, int]:
    """(query, key) pairs of the queries first..past-1, and the positions before `first` that any of them reads."""
    keys = [seen(position, window) for position in range(first, past)]
    return sum(map(len, keys)), len({key for some in keys for key in some if key < first})


def test_verify_of_three_positions_after_ten() -> None:
    # queries see 11, 12 and 13 positions
    assert decode_shape(2, 3, 10) == PassShape(rows=2, tokens=6, attended=72, cached=20, head_rows=6)


def test_a_window_of_four_forgets_all_but_the_last() -> None:
    # context 2: queries see 3, 4 and 4 positions; of the cache both positions are read
    assert decode_shape(1, 3, 2, window=4) == PassShape(1, 3, 11, 2, 3)
    # context 10: each sees 4, the first of them 3 in the cache
    assert decode_shape(1, 3, 10, window=4) == PassShape(1, 3, 12, 3, 3)


@given(
    q=st.integers(1, 12),
    context=st.integers(0, 40),
    window=st.none() | st.integers(1, 30),
    rows=st.integers(1, 5),
)
def test_decode_counts_every_pair(q: int, context: int, window: int | None, rows: int) -> None:
    pairs, cached = counted(context, context + q, window)
    assert decode_shape(rows, q, context, window) == PassShape(rows, rows * q, rows * pairs, rows * cached, rows * q)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), window=st.none() | st.integers(1, 30))
def test_prefill_counts_every_pair(lengths: list[int], window: int | None) -> None:
    pairs = sum(counted(0, length, window)[0] for length in lengths)
    assert prefill_shape(lengths, window) == PassShape(len(lengths), sum(lengths), pairs, 0, len(lengths))


@given(q=st.integers(1, 8), context=st.integers(0, 30), window=st.none() | st.integers(1, 30))
def test_one_verify_attends_as_much_as_its_positions_one_by_one(q: int, context: int, window: int | None) -> None:
    steps = [decode_shape(1, 1, context + i, window).attended for i in range(q)]
    assert decode_shape(1, q, context, window).attended == sum(steps)


def test_a_mean_context_between_whole_positions() -> None:
    # half of the sequences have 3 and half 4 cached positions: 4 + 5 and 5 + 6 pairs
    assert decode_shape(2, 2, 3.5).attended == 9 + 11
    # with a window of 5 they see 4 + 5 and 5 + 5; the mean context sees 4.5 + 5
    assert decode_shape(2, 2, 3.5, window=5).attended == 9 + 10


def test_shapes_add_and_split() -> None:
    whole = decode_shape(4, 3, 10)
    assert whole.split(4) == decode_shape(1, 3, 10)
    assert whole.split(2) + whole.split(2) == whole
    assert prefill_shape([3, 5]) == prefill_shape([3]) + prefill_shape([5])
    assert whole + prefill_shape([7]) == PassShape(5, 19, 144 + 28, 40, 13)


def test_nothing_to_prefill() -> None:
    assert prefill_shape([]) == PassShape(0, 0, 0, 0, 0)


@pytest.mark.parametrize("window", [None, 1, 7])
def test_plain_decoding_of_a_first_token(window: int | None) -> None:
    assert decode_shape(1, 1, 0, window) == PassShape(1, 1, 1, 0, 1)
