"""No plan fits: which memory is short, in which phase, by how much; and whatever is offered really fits."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

import specsim
from specsim.case import Case
from specsim.errors import InfeasibleError, InputError
from specsim.hardware import Machine
from specsim.units import GiB, MiB, parse
from tests.specsim import plans

OFFER = re.compile(r"([0-9.]+ [KMGT]iB) of (vram|ram) for the plan \(now ([0-9.]+ [KMGT]iB)\)")
SHORT = re.compile(
    r"no plan fits: (vram|ram) is short by ([0-9.]+ [KMGT]iB) in (prefill|transition|decode) "
    r"\(with ([^)]+)\); what fits: (.+)"
)


def refusal(case: Case, fix: dict[str, Any] | None = None) -> tuple[str, float, str, str, str]:
    """Memory, missing bytes, phase, the least demanding policy and what is offered."""
    with pytest.raises(InfeasibleError) as caught:
        specsim.plan(case, fix=fix)
    assert caught.value.exit_status == 1
    found = SHORT.fullmatch(str(caught.value))
    assert found is not None, str(caught.value)
    memory, size, phase, policy, offers = found.groups()
    return memory, parse(size, "bytes"), phase, policy, offers


def with_offer(machine: Machine, offers: str) -> Machine:
    """The machine with exactly the budgets that the message names."""
    budgets: dict[str, Any] = {
        f"{memory}_budget_bytes": parse(size, "bytes") for size, memory, _ in OFFER.findall(offers)
    }
    assert budgets, offers
    return replace(machine, **budgets)


def test_a_card_that_holds_nothing_names_vram_and_an_amount_that_fits() -> None:
    case = plans.case(vram=8 * MiB).plain()
    memory, size, phase, policy, offers = refusal(case)
    assert (memory, policy) == ("vram", "serial, no speculation, 1 x 1")
    assert phase in ("prefill", "decode")
    # A ring of two experts of 12 MiB and the head of 2 MB are needed, and a few MiB of activations.
    assert 2 * 12 * MiB + 2e6 - 8 * MiB < size < 2 * 12 * MiB + 2e6
    better = with_offer(case.machine, offers)
    assert better.vram_budget_bytes < 8 * MiB + size + 2 * MiB
    policies = [specsim.plan(case.on(better), fix=fix).decision.policy for fix in ({}, {"ring_slots": 2, "batch": 1})]
    assert {(policy.ring_slots, policy.batch) for policy in policies} == {(2, 1)}


def test_without_a_gpu_the_fast_memory_is_ram() -> None:
    case = plans.case(gpu=False, ram=16 * MiB)
    memory, _, _, _, offers = refusal(case)
    assert memory == "ram"
    assert specsim.plan(case.on(with_offer(case.machine, offers)), fix={"batch": 1, "gamma": 0})


@pytest.mark.parametrize(("ram", "short"), [(1 * GiB, {"vram", "ram"}), (16 * GiB, {"vram"})])
def test_every_memory_that_is_short_is_offered_and_the_offer_fits_as_printed(ram: float, short: set[str]) -> None:
    options: dict[str, Any] = {"target": "qwen2.5-72b", "prompt_tokens": 64, "output_tokens": 8, "requests": 4}
    fix = {"batch": 4, "gamma": 0, "strategy": "serial"}
    with pytest.raises(InfeasibleError) as caught:
        specsim.plan(gpu="rtx4090", vram=2.0 * GiB, ram=ram, fix=fix, **options)
    found = SHORT.fullmatch(str(caught.value))
    assert found is not None
    budgets = {memory: parse(size, "bytes") for size, memory, _ in OFFER.findall(found[5])}
    assert set(budgets) == short
    assert specsim.plan(gpu="rtx4090", **{"ram": ram} | budgets, fix=fix, **options).decision.policy.batch == 4


def test_a_batch_that_is_too_large_is_offered_smaller_and_the_smaller_fits() -> None:
    case = replace(plans.case(vram=34 * MiB), workload=replace(plans.case().workload, requests=256)).plain()
    fix = {"batch": 256, "strategy": "serial", "refill": False}
    *_, offers = refusal(case, fix)
    smaller = re.search(r"a batch of (\d+)", offers)
    assert smaller is not None, offers
    assert specsim.plan(case, fix=fix | {"batch": int(smaller[1])}).decision.policy.batch == int(smaller[1])


def test_what_the_user_settled_is_offered_back_to_the_planner_and_helps() -> None:
    case = plans.case(vram=60 * MiB)
    fix: dict[str, Any] = {"ring_slots": 6, "strategy": "serial", "batch": 4, "gamma": 0}
    *_, offers = refusal(case, fix)
    assert "ring_slots left to the planner" in offers
    del fix["ring_slots"]
    assert specsim.plan(case, fix=fix).decision.policy.ring_slots < 6


def test_a_draft_that_is_in_the_way_is_offered_to_go() -> None:
    case = plans.case(vram=130 * MiB)
    large = replace(case, draft=replace(case.target, name="large"))
    fix: dict[str, Any] = {"gamma": 4, "batch": 4, "strategy": "serial", "draft_kv": "vram"}
    *_, offers = refusal(large, fix)
    assert offers.startswith("draft_kv left to the planner, or no draft, or ")
    assert specsim.plan(large, fix={**fix, "draft_kv": None})
    assert specsim.plan(large.plain(), fix={"gamma": 0, "batch": 4, "strategy": "serial"})


@pytest.mark.parametrize(
    ("name", "value"), [("attention", "gpu"), ("kv", "vram"), ("ffn", "gpu"), ("draft_kv", "vram")]
)
def test_what_needs_a_gpu_cannot_be_fixed_without_one(name: str, value: str) -> None:
    with pytest.raises(InputError) as caught:
        specsim.plan(plans.case(gpu=False), fix={name: value})
    says = f"--fix {name}: {name} '{value}' needs a GPU, and desktop-ddr5-64g has none; leave it out"
    assert str(caught.value) == says
