"""An emulated link takes exactly as long as its bandwidth and latency say, on a clock that the test holds."""

from __future__ import annotations

import pytest
import torch

from executor.links import CHUNK_BYTES, Link, Pacer


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pacer(clock: Clock, bytes_per_s: float, latency_s: float = 0.0) -> Pacer:
    return Pacer(bytes_per_s, latency_s, clock=clock, sleep=clock.sleep)


def test_a_transfer_takes_its_bytes_over_the_bandwidth(clock: Clock) -> None:
    pacer(clock, 8.0)(16)
    assert clock.now == 102.0


def test_transfers_queue_and_an_idle_link_saves_nothing_up(clock: Clock) -> None:
    link = pacer(clock, 8.0)
    link(8)
    assert clock.now == 101.0
    clock.now = 105.0  # idle for four seconds
    link(8)
    assert clock.now == 106.0


def test_the_time_that_the_copy_itself_took_counts(clock: Clock) -> None:
    link = pacer(clock, 8.0)
    clock.now = 100.75  # a copy that began at 100 has just ended
    link(8, since=100.0)
    assert clock.now == 101.0


def test_a_copy_slower_than_the_link_is_not_held_up(clock: Clock) -> None:
    link = pacer(clock, 8.0)
    clock.now = 107.0
    link(8, since=100.0)
    assert clock.now == 107.0


def test_who_wakes_up_late_has_not_lost_the_time(clock: Clock) -> None:
    def oversleep(seconds: float) -> None:
        clock.now += seconds + 0.25

    link = Pacer(8.0, clock=clock, sleep=oversleep)
    for _ in range(4):
        link(8)
    assert clock.now == 104.25


def test_every_copy_pays_the_latency_once(clock: Clock) -> None:
    link = Link(pacer(clock, 1e6, latency_s=0.5))
    source = torch.arange(1000, dtype=torch.uint8)
    into = torch.zeros(1000, dtype=torch.uint8)
    assert link.bring(into, source) == 1000
    assert torch.equal(into, source)
    assert clock.now == pytest.approx(100.0 + 0.5 + 0.001, abs=1e-9)


def test_large_copies_go_in_chunks_and_take_no_longer(clock: Clock) -> None:
    link = Link(pacer(clock, float(CHUNK_BYTES)))
    source = torch.randint(0, 255, (5 * CHUNK_BYTES // 2,), dtype=torch.uint8)
    into = torch.empty_like(source)
    assert link.bring(into, source) == 5 * CHUNK_BYTES // 2
    assert torch.equal(into, source)
    assert clock.now == pytest.approx(102.5)


def test_a_part_of_a_cache_is_copied_in_place(clock: Clock) -> None:
    link = Link(pacer(clock, 1e9))
    source = torch.randn(2, 10, 4)
    into = torch.zeros(2, 12, 4)
    assert link.bring(into[:, 3:8], source[:, 3:8]) == 2 * 5 * 4 * 4
    assert torch.equal(into[:, 3:8], source[:, 3:8])
    assert not into[:, 8:].any()
    assert not into[:, :3].any()


def test_a_link_without_a_pacer_copies_at_once() -> None:
    into = torch.zeros(3)
    assert Link().bring(into, torch.ones(3)) == 12
    assert into.tolist() == [1, 1, 1]


def test_the_two_directions_do_not_wait_for_each_other() -> None:
    there, back = Clock(), Clock()
    link = Link(pacer(there, 8.0), pacer(back, 16.0))
    source = torch.zeros(16, dtype=torch.uint8)
    assert link.bring(torch.empty_like(source), source) == link.take_back(torch.empty_like(source), source) == 16
    assert (there.now, back.now) == (102.0, 101.0)
