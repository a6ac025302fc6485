"""A run is refused before it begins where the machine has changed, or where there is no room for what it writes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from executor import preflight
from executor.devices import Devices
from executor.engine import MOST_SPANS
from executor.preflight import check_disk, check_machine, check_vram, files_bytes
from executor.requests import Request
from specsim.errors import InputError
from specsim.hardware import Fact, Machine
from specsim.units import GiB
from tests.specsim import plans, stories

CUDA = Devices("gpu", torch.device("cuda", 0))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine of two cores and a card with 10 GiB left."""
    here = SimpleNamespace(cores=2, card="Card 9000", free=int(10 * GiB))
    monkeypatch.setattr(preflight, "read_system", lambda root: here)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: here.card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (here.free, here.free))
    return here


def machine(kind: str = "measured", *, cores: int = 2, card: str = "Card 9000") -> Machine:
    made = stories.machine()
    assert made.gpu is not None
    facts = tuple(Fact(field, "", kind, "") for field in ("host.cores", "gpu.vram"))
    return replace(made, host=replace(made.host, cores=cores), gpu=replace(made.gpu, title=card), facts=facts)


def test_the_machine_that_was_measured_is_accepted_and_a_better_one_too(here: Any) -> None:
    check_machine(machine(), CUDA)
    check_machine(machine(cores=1), CUDA)


def test_all_that_has_changed_is_said(here: Any) -> None:
    with pytest.raises(InputError) as caught:
        check_machine(machine(cores=8, card="Card 8000"), CUDA)
    assert str(caught.value) == (
        "run: this is not the machine of the plan: it had 8 cores, and this process may use 2; its GPU was Card 8000, "
        "and this one is Card 9000; measure and plan again, or run it --anyway"
    )


def test_what_is_from_a_datasheet_is_no_claim_about_this_machine(here: Any) -> None:
    check_machine(machine("datasheet", cores=8, card="Card 8000"), CUDA)


def test_an_emulated_gpu_has_no_name(here: Any) -> None:
    check_machine(machine(card="Card 8000"), Devices("gpu"))


def test_vram_that_others_have_taken_is_missing(here: Any) -> None:
    check_vram(int(9 * GiB), CUDA)
    check_vram(int(11 * GiB), Devices("gpu"))
    with pytest.raises(InputError, match=r"run: needs 11\.0 GiB of VRAM .*; the GPU has 10\.0 GiB left; end what else"):
        check_vram(int(11 * GiB), CUDA)


def requests(count: int, new: int) -> list[Request]:
    return [Request(i, str(i), (5, 6), new) for i in range(count)]


def test_files_grow_with_requests_and_tokens_and_timelines_do_not_for_ever() -> None:
    plan = plans.plan()
    small, more, longer = (files_bytes(plan, requests(*of), text=False) for of in ((4, 8), (8, 8), (8, 16)))
    assert small < more < longer
    vast, twice = (files_bytes(plan, requests(4, n), text=False) for n in (10**6, 2 * 10**6))
    assert vast > preflight.SPAN_BYTES * 2 * MOST_SPANS
    token = files_bytes(plan, requests(4, 2 * 10**6 + 1), text=False) - twice
    assert twice - vast == token * 10**6
    assert files_bytes(plan, requests(4, 8), text=True) == small + 4 * 8 * preflight.TEXT_BYTES


def test_a_disk_without_room_for_the_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = plans.plan(), requests(4, 8)
    needed = files_bytes(plan, asked, text=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=needed, place=place))
    check_disk(tmp_path / "not/there/yet", plan, asked, text=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=needed - 1, place=place))
    with pytest.raises(InputError, match=r"out: the files of the run may take .* are left; make room or choose"):
        check_disk(tmp_path / "out", plan, asked, text=True)
