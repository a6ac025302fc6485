"""From which acceptance speculation pays: points planned anew, the line between them, and what is said about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import specsim
from specsim import machines
from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.errors import InputError
from specsim.planner import anew as anew_module
from specsim.planner.anew import accepting, follow, plan_anew, policy_of, rate_of, start
from specsim.report.breakeven import draw
from specsim.report.style import save
from specsim.units import MiB
from specsim.whatif.breakeven import BreakEvenMap, Point, break_even, sentence
from tests.specsim import plans


def column(*ratios: float, rate: float = 8e9) -> list[Point]:
    """Points at acceptances 0.2, 0.4, ..."""
    return [Point(rate, 0.2 * (i + 1), 10.0, 10.0 * ratio) for i, ratio in enumerate(ratios)]


def found(*columns: list[Point], here: Point | None = None) -> BreakEvenMap:
    case = replace(plans.case(), acceptance=Acceptance.constant(0.6, "given", "tests"))
    points = tuple(point for points in columns for point in points)
    return BreakEvenMap(case, "link", points, here or Point(8e9, 0.6, 10.0, 13.0))


def test_it_breaks_even_on_the_straight_line_between_two_points() -> None:
    assert break_even(column(0.5, 0.9, 1.3)) == pytest.approx(0.4 + 0.2 * 0.25)
    assert break_even(column(1.1, 1.3)) == 0.2
    assert break_even(column(0.5, 0.9)) is None
    assert break_even([Point(8e9, 0.2, 0.0, 5.0)]) == 0.2  # only what speculates fits


def test_the_sentence_says_where_it_pays_and_where_this_machine_stands() -> None:
    columns = column(1.1, 1.3, 1.5, rate=4e9), column(0.5, 0.9, 1.3), column(0.5, 0.6, 0.7, rate=16e9)
    assert sentence(found(*columns)) == (
        "At an acceptance of 0.6 (given) speculation makes this machine 1.30 times as fast. "
        "It pays on a link of 4 GB/s from 0.2 or less, 8 GB/s from 0.45, 16 GB/s never."
    )
    slower = sentence(found(*columns, here=Point(8e9, 0.6, 10.0, 9.0)))
    assert slower.startswith("At an acceptance of 0.6 (given) speculation does not pay on this machine (0.90 times")
    alone = sentence(found(*columns, here=Point(8e9, 0.6, 10.0, 0.0)))
    assert alone.startswith("Only plans without speculation fit this machine.")


def test_the_best_plan_that_speculates_is_asked_for_where_the_first_was_best_without() -> None:
    """The first plan, which is carried over, is no answer then; nor is one that speculates where nothing can."""
    case = replace(plans.case(), acceptance=Acceptance.constant(0.05, "given", "tests"))
    first = start(case)
    assert first.found is not None
    assert first.found.decision.policy.gamma == 0
    speculative = follow(first, case, speculate=True)
    assert speculative is not None
    assert speculative.decision.policy.gamma > 0
    able = start(accepting(case, 0.95))
    assert able.found is not None
    assert able.found.decision.policy.gamma > 0
    plain = follow(able, case.plain())
    assert plain is not None
    assert plain.decision.policy.gamma == 0


def at(alpha: float, case: Case) -> Case:
    return replace(case, acceptance=Acceptance.constant(alpha, "given", "tests"))


@pytest.mark.parametrize("gpu", [True, False])
def test_the_map_does_not_depend_on_the_acceptance_given(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    case = plans.case(gpu=gpu)
    link, disk = case.machine.link, case.machine.disk
    own = link.rate(pinned=True) if link is not None else disk.rate()
    said: list[str] = []
    low = specsim.breakeven(at(0.1, case), rates=[own, own / 2], acceptances=[0.9, 0.3, 0.7], progress=said.append)
    high = specsim.breakeven(at(0.9, case), rates=[own / 2, own], acceptances=[0.3, 0.7, 0.9])
    assert low.points == high.points
    assert low.over == ("link" if gpu else "disk")
    grid = [(rate, alpha) for rate in (own / 2, own) for alpha in (0.3, 0.7, 0.9)]
    assert [(p.bytes_per_s, p.acceptance) for p in low.points] == grid
    assert sum(what.startswith("planning for ") for what in said) == len(grid)
    for rate in low.rates:
        speeds = [p.speculative for p in low.column(rate)]
        assert speeds == sorted(speeds)
    assert low.points[0].plain < low.points[-1].plain if gpu else low.points[0].plain <= low.points[-1].plain
    lowest = specsim.breakeven(at(0.3, case), rates=[own], acceptances=[0.3])
    assert lowest.points == (lowest.here,)
    assert list(low.to_frame()["ratio"]) == [p.ratio for p in low.points]


def test_rates_are_of_what_the_machine_waits_for_unless_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    case = plans.case()
    machine = machines.assemble(gpu="rtx4090", host="desktop-ddr5-64g", vram=320 * MiB, ram=100 * MiB)
    short = case.on(machine.scaled(disk=0.1))  # the target takes 428 MiB: some of it is read from the disk
    rate = short.machine.disk.rate()
    found = specsim.breakeven(short, rates=[rate], acceptances=[0.5])
    assert (found.over, found.here.bytes_per_s) == ("disk", rate)
    assert "It pays on a disk of " in sentence(found)
    assert specsim.breakeven(short, over="link", rates=[8e9], acceptances=[0.5]).over == "link"


def test_re_planning_keeps_the_policy_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    known = plans.plan()  # with gamma 3, as tests fix it
    kept = policy_of(known.decision)
    best = plan_anew(known.case, kept)
    assert rate_of(best) >= 0.95 * known.predicted.tokens_per_second  # the grid of round shapes is coarser
    plain = plan_anew(known.case.plain(), kept)  # which drafts, where nothing can
    assert plain is not None
    assert plain.decision.policy.gamma == 0


def test_a_question_unlike_the_first_is_searched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew_module, "REPLAN", (1, 1))
    case = plans.case()
    found = follow(start(case.plain()), case, speculate=True)  # the first has no draft, so no winner that drafts
    assert found is not None
    assert found.decision.policy.gamma > 0
    without = start(plans.case(gpu=False))
    assert without.found is not None
    assert follow(without, case) == plan_anew(case, policy_of(without.found.decision))


def test_what_cannot_be_mapped_is_told() -> None:
    with pytest.raises(InputError, match="nothing drafts; name a --draft, or ngram"):
        specsim.breakeven(plans.case().plain())
    one = replace(plans.case(), workload=replace(plans.case().workload, output_tokens=1))
    with pytest.raises(InputError, match="nothing to draft for: every request wants one token"):
        specsim.breakeven(one)
    with pytest.raises(InputError, match="over: there is no link, as there is no GPU; give disk"):
        specsim.breakeven(plans.case(gpu=False), over="link")
    with pytest.raises(InputError, match="a rate is -1 bytes/s; give more than zero"):
        specsim.breakeven(plans.case(), rates=[-1.0])
    with pytest.raises(InputError, match="an acceptance is 2; give 0 to 1"):
        specsim.breakeven(plans.case(), acceptances=[2.0])
    with pytest.raises(InputError, match="there is no point to plan for"):
        specsim.breakeven(plans.case(), acceptances=[])


def test_the_picture_has_a_cell_per_point_the_line_and_this_machine(tmp_path: Path) -> None:
    figure = draw(found(column(1.1, 1.3, 1.5, rate=4e9), column(0.5, 0.9, 1.3)))
    save(figure, tmp_path / "map.svg")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["1.10", "0.50", "1.30", "0.90", "1.50", "1.30"]
    line, here = axes.lines
    assert list(line.get_ydata()) == pytest.approx([0.0, 1.25])
    assert (list(here.get_xdata()), list(here.get_ydata())) == ([1.0], pytest.approx([2.0]))
    outside = draw(found(column(0.5, 0.9), here=Point(99e9, 0.6, 1.0, 1.0)))
    assert outside.axes[0].lines[:] == []
