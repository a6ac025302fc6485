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
    probes = {"a": Probe(lambda: clock.work("a", 1.0)), "b": Probe(lambda: clock.work("b", 2.0))}
    assert collect(probes, seconds=0.0, rounds=2, clock=clock) == {"a": (1.0, 1.0), "b": (2.0, 2.0)}
    assert clock.log == "aabb" * 2


def test_a_probe_that_times_its_parts_runs_once_a_round_and_gives_their_samples() -> None:
    clock = Clock()

    def walk() -> dict[str, float]:
        clock.work("w", 1.0)
        return {"head": clock.now, "tail": 2 * clock.now}

    samples = collect({"walk": Probe(walk, parts=True)}, seconds=0.0, rounds=2, clock=clock)
    assert samples == {"head": (1.0, 2.0), "tail": (2.0, 4.0)}
    assert clock.log == "ww"


def test_rounds_go_on_while_another_one_fits_into_the_time() -> None:
    clock = Clock()
    probes = {"a": Probe(lambda: clock.work("a", 1.0))}  # a round takes 2 s
    assert len(collect(probes, seconds=9.0, rounds=3, clock=clock)["a"]) == 4
    assert clock.now == 8.0


def test_what_is_only_queued_is_waited_for_inside_the_sample() -> None:
    clock = Clock()
    probe = Probe(lambda: clock.work("q", 0.0), finish=lambda: clock.work("f", 6.0))
    assert collect({"a": probe}, seconds=0.0, rounds=1, clock=clock) == {"a": (6.0,)}
    assert clock.log == "qfqf"


def test_a_burst_moves_neither_the_median_nor_its_spread() -> None:
    assert estimate((1.0, 1.25, 1.0, 9.0, 0.75)) == Estimate(1.0, 5, 0.25)
