"""What memory is worth: curves that never fall where memory grows, and what is read off them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import specsim
from specsim.case import Case
from specsim.errors import InputError
from specsim.memory import peak_items, shortfall
from specsim.planner.anew import rate_of
from specsim.planner.candidates import Candidate, Fixed
from specsim.planner.search import Found, Search
from specsim.report.style import save
from specsim.simulator.job import JobResult
from specsim.units import MiB
from specsim.whatif.budget import CLOSE, MemoryCurve, Point, generating_bytes, with_budget
from specsim.whatif.knee import Change, generation_change, generation_cut, given_up, keeps, knee, pays_from, sentence
from tests.specsim import plans, stories


def case() -> Case:
    """Prompts long enough for caches and activations to count, in a VRAM that holds most of the target."""
    asked = plans.case()
    work = replace(asked.workload, requests=64, prompt_tokens_mean=400, prompt_tokens_min=400, prompt_tokens_max=400)
    return replace(asked, workload=replace(work, output_tokens=64))


@cache
def planned() -> MemoryCurve:
    return specsim.budget(plans.case(), points=4)


def test_every_plan_fits_its_budget_and_none_is_slower_for_more_memory() -> None:
    found = planned()
    budgets = [point.budget_bytes for point in found.points]
    assert budgets == sorted(set(budgets), reverse=True)
    assert len(budgets) >= 4
    for point in found.points:
        at = with_budget(found.case, "vram", point.budget_bytes * (1 + 1e-9)).machine.budgets()
        for plan in (point.plain, point.speculative):
            assert plan is None or shortfall(at, peak_items(found.case, plan.decision)) is None
        assert point.plain is None or point.plain.decision.policy.gamma == 0
        assert point.speculative is None or point.speculative.decision.policy.gamma > 0
    for kind in ("plain", "speculative"):
        rates = [rate_of(getattr(point, kind)) for point in found.points]
        assert rates == sorted(rates, reverse=True)


def test_budgets_that_matter_are_found_closely() -> None:
    found = planned()
    whole = rate_of(found.points[0].speculative)
    small = keeps(found)
    assert small is not None
    assert rate_of(small.speculative) >= 0.96 * whole
    below = found.points[found.points.index(small) + 1]
    assert rate_of(below.speculative) < 0.96 * whole
    assert small.budget_bytes <= below.budget_bytes * (1 + CLOSE)


def test_under_a_tight_budget_plans_draft_less_and_attend_in_smaller_pieces() -> None:
    def best(vram: float) -> Found:
        asked = with_budget(case(), "vram", vram)
        return Search(asked, Fixed(strategy="serial", batch=64), speculate=True, survey=False).run().found[0]

    policies = [best(size * MiB).decision.policy for size in (600, 75)]
    assert policies[1].gamma < policies[0].gamma
    pieces = [policy.batch / policy.verify_micro_batches for policy in policies]
    assert pieces[1] < pieces[0] / 2


# readings, of curves made up for them


def made(gamma: int, rate: float, **changes: int) -> Found:
    """A plan of the stories at so many tokens/s."""
    known = stories.case(work=stories.workload(requests=8), draft=stories.model(family="mistral"))
    draft = stories.on_gpu("vram", 4) if gamma else None
    decision = stories.decision(
        "serial", stories.layers(known.target), gamma=gamma, draft=draft, **{"batch": 4} | changes
    )
    return Found(Candidate("serial", decision.policy), decision, JobResult(int(rate), 1.0, 0.0, (), ()))


def curve(*points: tuple[float, float, float], batches: tuple[int, ...] = ()) -> MemoryCurve:
    """(budget, tokens/s with, tokens/s without) by falling budgets; 0 where nothing fits."""
    known = stories.case(work=stories.workload(requests=8), draft=stories.model(family="mistral"))
    sizes = batches or (4,) * len(points)
    return MemoryCurve(
        known,
        "vram",
        0.96,
        tuple(
            Point(budget, made(0, plain) if plain else None, made(2, fast, batch=size) if fast else None)
            for (budget, fast, plain), size in zip(points, sizes, strict=True)
        ),
    )


def test_the_knee_is_furthest_above_the_line_between_the_ends() -> None:
    bent = curve((100, 100, 50), (60, 95, 50), (40, 90, 50), (20, 20, 10))
    bend = knee(bent)
    assert bend is not None
    assert bend.budget_bytes == 40  # 0.875 of the rise in 0.25 of the memory; at 60 it is 0.9375 in 0.5
    assert knee(curve((100, 100, 50), (60, 60, 50), (20, 20, 10))) is None  # straight
    assert knee(curve((100, 100, 50))) is None


def test_speculation_pays_down_to_the_smallest_budget_at_which_it_is_faster() -> None:
    found = curve((100, 150, 100), (80, 145, 100), (60, 90, 95), (40, 50, 45), (20, 0, 30))
    least = pays_from(found)
    assert least is not None
    assert least.budget_bytes == 40
    small = keeps(found)
    assert small is not None
    assert small.budget_bytes == 80  # 145 of 150
    assert found.points[-1].speedup == 0
    never = curve((100, 90, 100), (50, 0, 80))
    assert pays_from(never) is None
    assert sentence(never) == "In 100 B of VRAM speculation is 0.90 times as fast as without; it pays at no budget."
    gap = "it still pays in 40.0 B, but not in 60.0 B; 80.0 B keeps 96% of its speed-up"
    assert gap in sentence(found)
    assert "80.0 B keeps 95.99% of its speed-up" in sentence(replace(found, keep=0.9599))
    late = curve((100, 90, 100), (80, 80, 90), (60, 70, 60))
    assert "; it pays in 60.0 B, but not from 100 B to 80.0 B" in sentence(late)
    assert "keeps" not in sentence(late)
    assert keeps(curve((100, 0, 100), (50, 0, 80))) is None


def test_a_step_gives_up_what_its_plan_has_less_of() -> None:
    found = curve((1000, 150, 100), (900, 149, 100), (500, 0, 80), batches=(4, 2, 1))
    first, step, last = given_up(found)
    assert (first, last) == ((), ())
    more, less = (p.speculative for p in found.points[:2])
    assert more is not None
    assert less is not None
    kv = [peak_items(found.case, f.decision)["decode"]["vram"]["kv"] for f in (more, less)]
    assert Change("kv", kv[0] - kv[1], "prefill") in step
    assert [change.bytes for change in step] == sorted((change.bytes for change in step), reverse=True)
    assert not {"ring", "head", "weights", "draft weights"} & {change.item for change in step}
    cut = generation_cut(found)
    sizes = [generating_bytes(found.case, f.decision, "vram") for f in (more, less)]
    assert cut == pytest.approx(1 - sizes[1] / sizes[0])


def test_caches_that_moved_to_ram_are_no_saving() -> None:
    """Half the sequences, and their caches in RAM: less VRAM to generate, and what the RAM gains is told beside it."""
    found = curve((1000, 150, 100), (900, 149, 100))

    def with_caches_in_ram(batch: int) -> MemoryCurve:
        whole, small = found.points
        assert small.speculative is not None
        layers, draft = stories.layers(found.case.target, kv="ram"), stories.on_gpu("vram", 4)
        decision = stories.decision("serial", layers, gamma=2, draft=draft, batch=batch)
        return replace(found, points=(whole, replace(small, speculative=replace(small.speculative, decision=decision))))

    all_of_it, half = ({c.item: c for c in given_up(with_caches_in_ram(batch))[1]}["kv"] for batch in (4, 2))
    assert all_of_it.moved
    assert (half.moved, half.moved_bytes) == (False, half.bytes / 2)
    moved = with_caches_in_ram(2)
    change = generation_change(moved)
    assert change is not None
    assert change["vram"] < 0 < change["ram"]
    assert "less VRAM for generation (" in sentence(moved)
    assert "more of RAM)" in sentence(moved)


def test_what_makes_no_curve_is_told() -> None:
    with pytest.raises(InputError, match="memory: nothing drafts; name a --draft, or ngram"):
        specsim.budget(plans.case().plain())
    one = replace(plans.case(), workload=replace(plans.case().workload, output_tokens=1))
    with pytest.raises(InputError, match="there is nothing to draft for: every request wants one token"):
        specsim.budget(one)
    with pytest.raises(InputError, match=r"--keep: the share to keep is 1\.2; give more than 0, at most 1"):
        specsim.budget(plans.case(), keep=1.2)
    with pytest.raises(InputError, match="--points: 1 points make no curve; give 2 or more"):
        specsim.budget(plans.case(), points=1)


def test_the_picture_has_both_curves_and_what_is_held(tmp_path: Path) -> None:
    found = planned()
    figure = specsim.draw(found)
    save(figure, tmp_path / "budget.svg")
    curves = figure.axes[1]
    labels = [line.get_label() for line in curves.lines[:2]]
    assert labels == ["speculating", "without speculation"]
    assert list(curves.lines[0].get_xdata()) == [point.budget_bytes for point in found.points]
    assert len(found.to_frame()) == len(found.points)
