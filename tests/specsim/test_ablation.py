"""An ablation fixes one decision per row, re-plans the rest, and leaves out what a machine has no choice of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specsim.errors import InfeasibleError
from specsim.planner import ablation
from specsim.planner.ablation import MINUS, Minus, ablate, has_choice
from specsim.planner.candidates import Fixed
from specsim.planner.search import Search
from specsim.units import MiB
from tests.specsim import plans

SERIAL = Minus("schedule", (("strategy", "serial"), ("gamma", 0)), "nobody")
LARGE = Minus("batch", (("batch", 4), ("kv", "vram"), ("ring_slots", 0)), "nobody")


def decisions(*, gpu: bool = True, draft: bool = True) -> list[str]:
    case = plans.case(gpu=gpu) if draft else plans.case(gpu=gpu).plain()
    return list(dict.fromkeys(minus.decision for minus in MINUS if has_choice(case, Fixed(**dict(minus.fix)))))


def test_every_decision_is_taken_away_where_there_is_a_choice() -> None:
    everything = ["placement", "schedule", "gamma", "KV home", "attention", "draft KV"]
    assert decisions() == everything  # and no batch: four requests are fewer than any batch that others fix
    assert decisions(draft=False) == ["placement", "schedule", "KV home", "attention"]
    assert decisions(gpu=False) == ["placement", "schedule", "gamma", "draft KV"]
    many = replace(plans.case(), workload=replace(plans.case().workload, requests=64))
    assert all(has_choice(many, Fixed(**dict(minus.fix))) for minus in MINUS)


def test_a_row_is_the_best_plan_with_its_decision_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "MINUS", (SERIAL,))
    case = plans.case()
    found = ablate(case)
    assert found.tokens_per_second == Search(case).run().found[0].tokens_per_second
    (row,) = found.rows
    assert row.minus.words == "strategy=serial gamma=0"
    assert row.tokens_per_second == Search(case, Fixed(strategy="serial", gamma=0)).run().found[0].tokens_per_second
    assert row.share == row.tokens_per_second / found.tokens_per_second
    assert row.plan.startswith("serial, no speculation")


def test_what_does_not_fit_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "MINUS", (LARGE,))
    (row,) = ablate(plans.case(vram=150 * MiB)).rows
    assert (row.tokens_per_second, row.share, row.plan) == (0.0, 0.0, "nothing fits")


def test_nothing_to_ablate_where_no_plan_fits() -> None:
    with pytest.raises(InfeasibleError):
        ablate(plans.case(vram=1 * MiB))
