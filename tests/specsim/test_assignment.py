"""Counts become layers: nothing is lost, and every group gets its share to within one."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from specsim.planner.assignment import spread


def test_choices_alternate_along_the_depth() -> None:
    assert spread({"cpu": 2, "gpu": 4}, groups=6, size=1) == [
        ("gpu",),
        ("cpu",),
        ("gpu",),
        ("gpu",),
        ("cpu",),
        ("gpu",),
    ]


def test_every_group_gets_the_mix_in_the_order_of_the_counts() -> None:
    assert spread({"vram": 2, "pinned": 4}, groups=2, size=3) == [("vram", "pinned", "pinned")] * 2


def test_nothing_to_deal_gives_empty_groups() -> None:
    assert spread({}, groups=2, size=0) == [(), ()]
    assert spread({"vram": 0}, groups=0, size=1) == []


@st.composite
def deals(draw: st.DrawFn) -> tuple[dict[int, int], int, int]:
    groups, size = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    cuts = sorted(draw(st.lists(st.integers(0, groups * size), max_size=5)))
    counts = [b - a for a, b in zip([0, *cuts], [*cuts, groups * size], strict=True)]
    return dict(enumerate(counts)), groups, size


@given(deals())
def test_counts_are_exact_and_every_stretch_has_its_share(deal: tuple[dict[int, int], int, int]) -> None:
    counts, groups, size = deal
    dealt = spread(counts, groups, size)
    assert Counter(choice for group in dealt for choice in group) == Counter({c: n for c, n in counts.items() if n})
    assert [len(group) for group in dealt] == [size] * groups
    for group in dealt:
        for choice, n in counts.items():
            assert abs(group.count(choice) - n / groups) <= 1, (choice, group)
