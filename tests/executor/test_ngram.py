"""What prompt lookup proposes, by example and against a search of the whole context."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from executor.speculation.ngram import NgramIndex, propose


def found_by_search(tokens: list[int], gamma: int, longest: int) -> tuple[int, ...]:
    for n in range(min(longest, len(tokens) - 1), 0, -1):
        for end in range(len(tokens) - 1, n - 1, -1):
            if tokens[end - n : end] == tokens[-n:]:
                known = list(tokens)
                while len(known) < len(tokens) + gamma:
                    known.append(known[end + len(known) - len(tokens)])
                return tuple(known[len(tokens) :])
    return ()


def test_the_continuation_of_the_longest_match_is_proposed() -> None:
    #                 7 1 2 was followed by 8, the later 1 2 by 9
    assert propose([7, 1, 2, 8, 8, 5, 1, 2, 9, 9, 7, 1, 2], 2) == (8, 8)
    assert propose([7, 1, 2, 8, 8, 5, 1, 2, 9, 9, 7, 1, 2], 2, longest=2) == (9, 9)


def test_of_equal_matches_the_latest_is_proposed() -> None:
    assert propose([1, 2, 1, 3, 1], 1) == (3,)


def test_nothing_is_proposed_where_nothing_matches() -> None:
    assert propose([], 3) == ()
    assert propose([1], 3) == ()
    assert propose([1, 2, 3, 4], 3) == ()
    assert propose([1, 1], 0) == ()


def test_a_loop_is_proposed_as_a_loop() -> None:
    assert propose([4, 4], 3) == (4, 4, 4)
    assert propose([9, 1, 2, 3, 1, 2, 3], 7) == (1, 2, 3, 1, 2, 3, 1)


def test_a_match_goes_on_into_what_was_committed_since() -> None:
    index = NgramIndex([1, 2, 3])
    assert index.propose(2) == ()
    index.extend([1])
    assert index.propose(2) == (2, 3)
    index.extend([2, 5])
    assert index.propose(2) == ()
    index.extend([1, 2])
    assert index.propose(2) == (5, 1)


@given(
    pieces=st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=8),
    gamma=st.integers(0, 6),
    longest=st.integers(1, 4),
)
def test_the_index_finds_what_a_search_of_the_whole_context_finds(
    pieces: list[list[int]], gamma: int, longest: int
) -> None:
    index, tokens = NgramIndex(longest=longest), list[int]()
    for piece in pieces:
        index.extend(piece)
        tokens += piece
        assert index.propose(gamma) == found_by_search(tokens, gamma, longest)
    assert propose(tokens, gamma, longest) == found_by_search(tokens, gamma, longest)
