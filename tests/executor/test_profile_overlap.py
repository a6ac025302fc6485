"""What a disk and a processor take of each other, out of made-up samples and of a made-up clock."""

from __future__ import annotations

import threading

import pytest

from executor.profile.overlap import Overlap, overlap_facts, overlap_samples


def test_the_slower_of_two_says_what_the_other_takes() -> None:
    """Computing takes 8 s beside reads instead of 6, reads of 100 bytes 5 s instead of 4."""
    facts = overlap_facts(
        Overlap(100, compute=(6.0, 6.0), read=(4.0, 4.0), compute_beside=(8.0,) * 2, read_beside=(5.0,) * 2)
    )
    assert facts["cpu_rate"].value == 20 / 0.25  # at 20 B/s a quarter of the processor is gone
    assert facts["lost_to_cpu"].value == pytest.approx(0.2)


def test_what_is_not_noticed_is_no_fact() -> None:
    same = (1.0, 1.0)
    assert overlap_facts(Overlap(100, same, same, (1.004,) * 2, (0.9,) * 2)) == {}


def test_both_are_run_alone_and_then_together() -> None:
    """Three rounds; computing goes on until a read has begun beside it, whatever the clock says."""
    beside = []

    def read() -> None:
        beside.append(threading.current_thread() is not threading.main_thread())

    samples = overlap_samples(lambda: None, read, 100, seconds=0.0, each=0.0)
    assert len(samples.compute) == len(samples.read) == len(samples.compute_beside) == len(samples.read_beside) == 3
    assert beside.count(False) == 3
    assert beside.count(True) >= 3
