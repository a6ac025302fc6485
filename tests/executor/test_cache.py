"""The arena of keys and values: who has which places."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from executor.decoder.batch import Batch
from executor.decoder.cache import KvArena, Segment, SequenceCache, alone, shared_runs
from executor.decoder.numerics import EXACT
from tests.executor.decoder_stories import load


def arena(places: int) -> KvArena:
    return KvArena.empty(load("llama").arch, places)  # 2 layers, 2 KV heads of size 8


def test_a_layer_is_one_tensor_where_it_is_wanted() -> None:
    kv = KvArena.empty(load("llama").arch, 6, [torch.device("cpu"), torch.device("meta")])
    assert [(tuple(layer.shape), layer.device.type) for layer in kv.layers] == [
        ((2, 2, 6, 8), "cpu"),
        ((2, 2, 6, 8), "meta"),
    ]


def test_places_are_neighbours_as_long_as_there_are_any() -> None:
    kv = arena(10)
    a, b, c = kv.take(3), kv.take(2), kv.take(4)
    assert [cache.runs for cache in (a, b, c)] == [(range(3),), (range(3, 5),), (range(5, 9),)]
    kv.give_back(a)
    kv.give_back(c)  # 0 to 2 and 5 to 9 are free
    d = kv.take(4)
    assert d.runs == (range(5, 9),)
    e = kv.take(4)
    assert e.runs == (range(3), range(9, 10))
    assert e.places.tolist() == [0, 1, 2, 9]
    for cache in (b, d, e):
        kv.give_back(cache)
    assert kv.take(10).runs == (range(10),)


def test_more_places_than_are_free_are_an_error_and_take_nothing() -> None:
    kv = arena(5)
    kv.take(3)
    with pytest.raises(ValueError, match=r"^3 positions for a cache where 2 places are free$"):
        kv.take(3)
    assert kv.take(2).runs == (range(3, 5),)


def test_a_cache_grows_beside_itself_while_it_can_and_keeps_what_it_has() -> None:
    kv = arena(10)
    a, b = kv.take(2), kv.take(2)
    kv.grow(b, 2)
    assert (b.runs, b.capacity) == ((range(2, 6),), 4)
    kv.grow(a, 3)  # 2 to 5 are taken
    assert (a.runs, a.places.tolist()) == ((range(2), range(6, 9)), [0, 1, 6, 7, 8])
    with pytest.raises(ValueError, match=r"^2 positions for a cache where 1 places are free$"):
        kv.grow(a, 2)
    kv.give_back(a)
    assert kv.pool.free == 6
    kv.grow(b, 6)
    assert b.runs == (range(2, 10), range(2))


def test_arenas_of_one_pool_have_the_same_places_taken() -> None:
    kv = arena(4)
    beside = KvArena.empty(load("llama").arch, 4, pool=kv.pool)
    own = kv.take(3)
    other = SequenceCache(beside, own.room)
    with pytest.raises(ValueError, match="where 1 places are free"):
        beside.take(2)
    kv.grow(own, 1)
    assert (other.capacity, other.runs) == (4, own.runs)


def test_two_threads_never_have_the_same_places() -> None:
    kv = arena(64)
    taken: set[int] = set()
    lock = threading.Lock()

    def use(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            cache = kv.take(rng.randint(1, 30))
            places = set(cache.places.tolist())
            with lock:
                assert not places & taken
                taken.update(places)
            with lock:
                taken.difference_update(places)
            kv.give_back(cache)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(use, range(2)))
    finally:
        sys.setswitchinterval(before)
    assert kv.take(64).runs == (range(64),)


def test_a_cache_of_nothing_takes_nothing() -> None:
    kv = arena(2)
    empty = kv.take(0)
    assert (empty.capacity, empty.runs) == (0, ())
    kv.give_back(empty)
    assert kv.take(2).runs == (range(2),)


def test_runs_that_two_caches_share() -> None:
    kv = arena(12)
    first, _, third = kv.take(3), kv.take(2), kv.take(5)
    kv.give_back(first)
    kv.give_back(third)
    kv.take(6)
    scattered = kv.take(4)
    assert scattered.runs == (range(3), range(11, 12))
    whole = alone(load("llama").arch, 4)
    assert list(shared_runs(scattered, whole, 1, 4)) == [(slice(1, 3), slice(1, 3)), (slice(11, 12), slice(3, 4))]
    assert list(shared_runs(whole, scattered, 0, 2)) == [(slice(0, 2), slice(0, 2))]
    assert list(shared_runs(scattered, whole, 2, 2)) == []


@pytest.mark.parametrize("segment", [Segment(0, 1, 6), Segment(0, 3, 4)])
def test_a_cache_that_is_too_small_is_an_error(segment: Segment) -> None:
    arch = load("llama").arch
    with pytest.raises(ValueError, match=r"^position 6 in a cache of 6 positions$"):
        Batch(arch, EXACT, [segment], [alone(arch, 6)], torch.device("cpu"))


def test_caches_of_different_arenas_do_not_attend_together() -> None:
    arch = load("llama").arch
    segments, caches = [Segment(0, 1, 0), Segment(1, 1, 0)], [alone(arch, 6), alone(arch, 6)]
    with pytest.raises(ValueError, match=r"^caches of different arenas attend together$"):
        Batch(arch, EXACT, segments, caches, torch.device("cpu"))


def test_a_cache_that_shrinks_keeps_its_first_places_and_gives_back_the_others() -> None:
    kv = arena(10)
    first, between, cache = kv.take(2), kv.take(3), kv.take(5)
    kv.give_back(first)
    kv.grow(cache, 2)  # which are not its neighbours
    assert cache.places.tolist() == [5, 6, 7, 8, 9, 0, 1]
    kv.shrink(cache, 6)
    assert (cache.places.tolist(), kv.pool.free) == ([5, 6, 7, 8, 9, 0], 1)
    kv.shrink(cache, 3)
    assert (cache.runs, kv.pool.free) == ((range(5, 8),), 4)
    kv.give_back(cache)
    kv.give_back(between)
    assert kv.pool.free == 10
