"""Budgets are kept before anything is allocated."""

from __future__ import annotations

import pytest

from executor.memory import Ledger
from specsim.errors import InputError


def test_peaks_are_of_what_lives_at_once() -> None:
    ledger = Ledger({"vram": 100.0, "ram": 50.0})
    ledger.take("vram", "weights", 60)
    ledger.take("vram", "kv", 30)
    ledger.give_back("vram", "kv", 30)
    ledger.take("vram", "kv", 20)
    ledger.take("ram", "kv", 50)
    assert ledger.peaks == {"vram": 90, "ram": 50}
    assert ledger.used("vram") == 80
    assert ledger.items["vram", "kv"] == 20


def test_a_phase_gives_back_the_workspaces_of_the_one_before_it() -> None:
    ledger = Ledger({"vram": 100.0, "ram": 100.0}, {"prefill": {"vram": 50, "ram": 5}, "decode": {"vram": 20}})
    ledger.take("vram", "weights", 40)
    ledger.enter("prefill")
    ledger.enter("prefill")
    assert (ledger.used("vram"), ledger.used("ram")) == (90, 5)
    ledger.enter("decode")
    assert (ledger.used("vram"), ledger.used("ram")) == (60, 0)
    ledger.take("vram", "kv", 40)
    assert ledger.peaks == {"vram": 100, "ram": 5}


def test_what_exceeds_a_budget_is_refused_and_not_entered() -> None:
    ledger = Ledger({"ram": 3 * 2**20})
    ledger.take("ram", "weights", 2 * 2**20)
    with pytest.raises(InputError) as caught:
        ledger.take("ram", "ring", 2 * 2**20)
    assert str(caught.value) == (
        "ram: ring of 2.00 MiB exceeds the budget of 3.00 MiB, 2.00 MiB of it in use; "
        "plan again for this machine, or with a larger --ram"
    )
    assert ledger.used("ram") == 2 * 2**20
    ledger.take("ram", "ring", 2**20)
    assert ledger.peaks == {"ram": 3 * 2**20}


def test_a_new_phase_is_told_once() -> None:
    told: list[str] = []
    ledger = Ledger({"ram": 1.0}, on_phase=lambda: told.append(ledger.phase))
    for phase in ("prefill", "prefill", "decode", "prefill"):
        ledger.enter(phase)
    assert told == ["prefill", "decode", "prefill"]
