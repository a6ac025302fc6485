"""What is kept of requests that have ended, and who gets it."""

from __future__ import annotations

from executor.decoder.cache import KvArena
from executor.kept import Entry, Kept, common
from tests.executor.decoder_stories import load


def kept(*lengths: int) -> tuple[Kept, KvArena]:
    """Entries of tokens that all begin with 0, 1, 2, ... and end with a token of their own."""
    arena = KvArena.empty(load("llama").arch, 200)
    room = Kept(lambda entry: arena.give_back(entry.cache))
    for own, length in enumerate(lengths, start=1000):
        room.keep(Entry((*range(length - 1), own), arena.take(length), None))
    return room, arena


def test_the_longest_common_beginning_is_taken_over_once() -> None:
    room, _ = kept(20, 40, 60)
    found = room.claim(range(35))
    assert found is not None
    assert (len(found[0].tokens), found[1]) == (40, 35)
    assert [len(entry.tokens) for entry in room.entries] == [20, 60]


def test_a_beginning_that_is_short_or_less_than_half_is_left() -> None:
    room, _ = kept(60)
    assert room.claim(range(29)) is None
    assert room.claim(range(30)) is not None
    room, _ = kept(16)
    assert room.claim(range(16)) is None  # 15 of them
    assert room.claim(()) is None


def test_the_longest_unused_goes_first() -> None:
    room, arena = kept(20, 40, 60)
    assert (room.positions, arena.pool.free) == (120, 80)
    assert room.evict()
    assert (room.positions, arena.pool.free) == (100, 100)
    assert room.evict() and room.evict() and not room.evict()  # noqa: PT018
    assert (room.positions, arena.pool.free) == (0, 200)


def test_common_beginnings_are_counted() -> None:
    assert [common((1, 2, 3), other) for other in [(), (1,), (1, 2, 4), (1, 2, 3, 4), (2, 2)]] == [0, 1, 2, 3, 0]
