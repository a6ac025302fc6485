"""The configurations cover what predictions claim to hold for, and scores are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from specsim.decision import BATCHES
from specsim.report.scatter import save, scatter
from specsim.validation.configurations import FIT, SHAPES, TEST, Configuration
from specsim.validation.scores import Outcome, scores, worst


def test_nothing_is_both_fitted_and_tested() -> None:
    assert not set(FIT) & set(TEST)
    everything = FIT + TEST
    assert len({c.name for c in everything}) == len(everything)


def test_the_tests_cover_what_was_promised() -> None:
    assert len(TEST) >= 24
    assert {c.shape for c in TEST} == set(SHAPES)
    assert len({c.memory for c in TEST}) == 4
    assert {c.strategy for c in TEST} == set(BATCHES)
    assert set(range(7)) - {5} <= {c.gamma for c in TEST}
    assert {1, 2, 4, 8, 16, 32, 64} == {c.batch for c in TEST}
    for way, fastest in (("disk", 2.0), ("link", 8.0)):
        rates = [c.gigabytes_per_s for c in TEST if c.way == way]
        assert (min(rates), max(rates)) == (0.25, fastest)


def test_a_name_says_everything() -> None:
    one = Configuration("few", "disk", 0.25, 0.55, "merged", 2, 16, refill=True)
    assert one.name == "few-disk0.25-55-merged-g2-b16-refill"
    assert one.requests == 64
    assert Configuration("few", "disk", 1, 0.5, "serial", 0, 32).requests == 32


def outcome(planned: float, measured: float, reach: float = 1.2) -> Outcome:
    return Outcome(f"{planned:g}", planned, planned / reach, planned * reach, measured)


def test_scores_of_a_few_outcomes() -> None:
    found = scores([outcome(100, 100), outcome(110, 100), outcome(150, 100), outcome(80, 100), outcome(200, 210)])
    assert found.count == 5
    assert found.median == pytest.approx(0.1)
    assert found.worst == pytest.approx(0.5)
    assert found.p90 == pytest.approx(0.38)  # between 0.2 and 0.5, six tenths of the way
    assert found.coverage == pytest.approx(0.6)  # 80 / 1.2 to 96 does not hold 100, nor does 125 to 180
    assert scores([outcome(1, 1), outcome(2, 3), outcome(3, 2)]).rank == pytest.approx(0.5)
    assert scores([outcome(2, 1)]).rank == 1.0
    assert scores([outcome(2, 1), outcome(1, 2)]).log_error == pytest.approx(0.6931, abs=1e-4)


def test_the_worst_come_first() -> None:
    names = [o.name for o in worst([outcome(100, 100), outcome(150, 100), outcome(40, 100), outcome(90, 100)], 2)]
    assert names == ["40", "150"]


def test_the_picture_has_a_point_for_every_outcome(tmp_path: Path) -> None:
    save(scatter([outcome(100, 100), outcome(150, 100), outcome(3, 2.9)]), tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 10_000
