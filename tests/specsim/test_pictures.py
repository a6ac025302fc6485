"""Pictures show the numbers that they are made of: memory by tier and phase, the roofline, and one look for all."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.axes import Axes

from specsim import api
from specsim.memory import PHASES, peak_items
from specsim.report import memory, roofline, style
from specsim.report.sections import used_memories
from specsim.timeline import Span, Timeline
from tests.specsim import plans, stories


def bar_sums(axes: Axes) -> list[float]:
    """Where the bars of each row of a panel end, top row first."""
    rows: dict[int, float] = {}
    for bar in axes.patches:
        x0, x1 = bar.get_window_extent().transformed(axes.transData.inverted()).intervalx
        row = round(bar.get_y() + bar.get_height() / 2)  # type: ignore[attr-defined]
        rows[row] = max(rows.get(row, x0), x1)
    return [rows[row] for row in sorted(rows)]


@pytest.mark.parametrize("gpu", [True, False])
def test_the_bars_of_a_memory_end_at_its_peaks_and_the_line_at_its_budget(gpu: bool) -> None:
    plan = plans.plan(gpu=gpu)
    figure = memory.memory_picture(plan)
    assert len(figure.axes) == len(used_memories(plan))
    for axes, name in zip(figure.axes, used_memories(plan), strict=True):
        peaks = [float(plan.predicted.peak_bytes[phase][name]) for phase in PHASES]
        assert bar_sums(axes) == pytest.approx(peaks, rel=1e-6)
        budget = plan.case.machine.budgets()[name]
        lines = [line.get_xdata()[0] for line in axes.lines]  # type: ignore[index]
        assert lines == ([budget] if budget <= 4 * max(peaks) else [])


def test_every_item_of_a_plan_that_drafts_is_in_the_group_that_its_name_says() -> None:
    plan = plans.plan()
    peaks = peak_items(plan.case, plan.decision)
    for phase in PHASES:
        for items in peaks[phase].values():
            groups = memory.grouped(items)
            assert sum(groups.values()) == pytest.approx(sum(items.values()))
            assert groups["draft"] == pytest.approx(sum(size for item, size in items.items() if "draft" in item))
            assert groups["weights"] == sum(s for i, s in items.items() if i.endswith("weights") and "draft" not in i)


def test_a_roof_is_flat_where_computing_bounds_and_slopes_where_bytes_do() -> None:
    roof = roofline.Roof(flops_per_s=100.0, bytes_per_s=10.0)
    assert [roof.at(intensity) for intensity in (1.0, 10.0, 1000.0)] == [10.0, 100.0, 100.0]


def test_the_roofs_are_the_rates_that_the_simulator_counts_with() -> None:
    on = stories.machine(gpu=stories.processor(80.0, 20.0), cpu=stories.processor(6.0, 3.0), link=2.0, disk=1.0)
    assert roofline.roofs(stories.case(on)) == {
        "gpu": roofline.Roof(80.0, 20.0),
        "cpu": roofline.Roof(6.0, 3.0),
        "h2d": roofline.Roof(80.0, 2.0),
        "disk": roofline.Roof(86.0, 1.0),
    }
    bare = stories.machine(cpu=stories.processor(6.0, 3.0), disk=1.0, bare=True)
    assert roofline.roofs(stories.case(bare)) == {"cpu": roofline.Roof(6.0, 3.0), "disk": roofline.Roof(6.0, 1.0)}


def test_a_link_that_is_always_busy_puts_its_point_on_its_roof() -> None:
    """8 bytes come over a link of 2 bytes/s in 4 s, and the GPU makes 40 FLOPs of 20 bytes in VRAM meanwhile."""
    timeline = Timeline(
        (Span("load", "h2d", "load", 0.0, 4.0, bytes=8.0), Span("ffn", "gpu", "ffn", 1.0, 2.0, flops=40.0, bytes=20.0))
    )
    link, gpu = roofline.Roof(80.0, 2.0), roofline.Roof(80.0, 20.0)
    points = {point.resource: point for point in roofline.points("decode", timeline)}
    assert points == {
        "gpu": roofline.Point("decode", "gpu", 2.0, 10.0),
        "h2d": roofline.Point("decode", "h2d", 5.0, 10.0),
    }
    assert points["h2d"].flops_per_s == link.at(5.0)
    assert points["gpu"].flops_per_s < gpu.at(2.0)


@pytest.mark.parametrize("gpu", [True, False])
def test_no_point_of_a_plan_lies_above_its_roof(gpu: bool) -> None:
    plan = plans.plan(gpu=gpu)
    found = api.simulate(plan)
    roofs = roofline.roofs(plan.case)
    points = roofline.points("prefill", found.prefill) + roofline.points("decode", found.round)
    assert {point.phase for point in points} == set(roofline.PHASES)
    for point in points:
        assert point.flops_per_s <= roofs[point.resource].at(point.intensity) * (1 + 1e-9)
    labels = [text.get_text() for text in roofline.roofline(plan, found).legends[0].get_texts()]
    assert len(labels) == len({point.resource for point in points}) + 2


def test_a_dollar_sign_in_a_name_is_one() -> None:
    figure = style.new_figure(6.0, 2.0)
    style.heading(figure, "a$model$ and another", "of $5")
    style.heading(figure, "$\\nonsense{$")
    figure.canvas.draw()  # text that is taken for mathematics fails here
    assert figure.texts[0].get_text() == "a$model$ and another"


def test_a_subtitle_has_the_room_that_its_lines_take() -> None:
    heights = [style.heading_inches("word " * n, 6.0) for n in (0, 10, 40, 160)]
    assert all(less < more for less, more in pairwise(heights))


def test_every_colour_has_a_mark_of_its_own() -> None:
    assert len(set(style.PALETTE)) == len(set(style.MARKS)) == len(style.PALETTE)
