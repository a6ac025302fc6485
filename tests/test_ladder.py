"""The ladder from SpecOffload's decisions to ours leaves one more of them to the planner on every rung."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.ladder import FREED, rungs
from specsim.planner.candidates import Fixed, check
from specsim.published.cells import UNKNOWN_POLICIES, Cell, case, cells

PUBLISHED = [cell for cell in cells() if cell.system == "specoffload" and cell.model != UNKNOWN_POLICIES]


@pytest.mark.parametrize("cell", PUBLISHED, ids=lambda cell: cell.key)
def test_a_ladder_goes_from_all_decisions_to_none(cell: Cell) -> None:
    fixed = rungs(cell)
    assert len(fixed) == len(FREED)
    assert fixed[0].keys() == {name for freed in FREED.values() for name in freed}
    assert fixed[-1] == {}
    for rung, following in pairwise(fixed):
        assert following.items() < rung.items()
    for rung in fixed:
        check(case(cell, 32), Fixed(**rung))
