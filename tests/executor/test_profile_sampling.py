"""Probes take turns; a median and its spread come of their samples."""

from __future__ import annotations

from executor.profile.sampling import Estimate, Probe, collect, estimate


class Clock:
    """Time that passes only in `work`."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def work(self, name: str, seconds: float) -> None:
        self.log, self.now = self.log + name, self.now + seconds

    def __call__(self) -> float:
        return self.now


def test_probes_take_turns_and_each_sample_follows_an_untimed_run() -> None:
    clock = Clock()
    probes = {"a": Probe(lambda: clock.work("a", 1.0)), "b": Probe(lambda: clock.work("b", 2.0), repeats=2)}
    assert collect(probes, seconds=0.0, rounds=2, clock=clock) == {"a": (1.0, 1.0), "b": (2.0, 2.0)}
    assert clock.log == "aabbb" * 2


def test_rounds_go_on_while_another_one_fits_into_the_time() -> None:
    clock = Clock()
    probes = {"a": Probe(lambda: clock.work("a", 1.0))}  # a round takes 2 s
    assert len(collect(probes, seconds=9.0, rounds=3, clock=clock)["a"]) == 4
    assert clock.now == 8.0


def test_what_is_only_queued_is_waited_for_inside_the_sample() -> None:
    clock = Clock()
    probe = Probe(lambda: clock.work("q", 0.0), repeats=3, finish=lambda: clock.work("f", 6.0))
    assert collect({"a": probe}, seconds=0.0, rounds=1, clock=clock) == {"a": (2.0,)}
    assert clock.log == "qfqqqf"


def test_a_burst_moves_neither_the_median_nor_its_spread() -> None:
    assert estimate((1.0, 1.25, 1.0, 9.0, 0.75)) == Estimate(1.0, 5, 0.25)
