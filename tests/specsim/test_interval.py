"""What an interval is made of: spreads of rates that matter, luck, and what the model leaves out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from msgspec.structs import replace as change

from specsim.answer import Plan
from specsim.hardware import Fact
from specsim.validation.interval import MODEL_ERROR, interval, spreads
from tests.specsim import plans


def measured(plan: Plan, *facts: tuple[str, str, str]) -> Plan:
    """The plan on a machine whose facts (field, kind, spread) are as given."""
    told = tuple(Fact(field, "1", kind, f"2026-01-01, specsim, n=9, spread {spread}") for field, kind, spread in facts)
    return replace(plan, case=plan.case.on(replace(plan.case.machine, facts=told)))


def test_spreads_are_those_of_rates_that_were_measured() -> None:
    facts = (
        ("disk.bandwidth", "measured", "4.1%"),
        ("disk.latency", "measured", "50%"),
        ("host.dram_bandwidth", "measured", "3%"),
        ("host.bf16", "datasheet", "7%"),
    )
    plan = measured(plans.plan(gpu=False), *facts)
    assert spreads(plan.case.machine) == pytest.approx({"disk": 0.041, "dram": 0.03})


def test_only_what_the_plan_waits_for_widens_its_interval() -> None:
    plan = plans.plan(gpu=False)  # it streams half of its target from the disk
    disk = interval(measured(plan, ("disk.bandwidth", "measured", "10%")))
    cpu = interval(measured(plan, ("host.bf16", "measured", "10%")))
    assert disk.causes["rates"] == pytest.approx(math.log(1.1), rel=0.1)
    assert cpu.causes["rates"] < 0.01
    assert interval(measured(plan)).causes["rates"] == 0


def test_luck_is_of_speculation_alone() -> None:
    plan = plans.plan(gpu=False)
    plain = change(plan.decision, policy=change(plan.decision.policy, gamma=0, draft=None))
    assert interval(replace(plan, decision=plain)).causes["luck"] == 0
    assert interval(plan).causes["luck"] > 0.01


def test_an_interval_lies_around_the_prediction_and_holds_four_of_five() -> None:
    plan = plans.plan(gpu=False)
    found = interval(measured(plan))
    sigma = math.hypot(found.causes["luck"], MODEL_ERROR)
    middle = plan.predicted.tokens_per_second
    assert math.log(found.high / middle) == pytest.approx(math.log(middle / found.low))
    assert math.erf(math.log(found.high / middle) / sigma / math.sqrt(2)) == pytest.approx(0.8, abs=1e-4)
    assert middle in found
    assert 2 * middle not in found
