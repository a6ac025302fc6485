"""A run with tiny sizes gives a machine that can be planned for."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from executor.profile.analysis import Measured
from executor.profile.machine import Device, Facts, to_profile, warnings
from executor.profile.measure import measure
from specsim import api, machines, profiles
from specsim.hardware import OPS, Curve
from specsim.planfile import dump_yaml
from tests.executor.profile_stories import DISK, HOST, NO_TIME
from tests.specsim import plans

DAY = datetime.date(2030, 1, 2)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """Measured once, in one thread and without a look at any GPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield measure(tmp_path_factory.mktemp("disk"), effort=NO_TIME, host=HOST, disk=DISK)
    torch.set_num_threads(threads)


def test_the_file_reads_back_as_the_machine_and_every_number_has_a_source(facts: Facts, tmp_path: Path) -> None:
    file = tmp_path / "here.yaml"
    file.write_text(dump_yaml(to_profile(facts, DAY)))
    assert profiles.problems(file) == []
    machine = machines.assemble(machine=str(file))
    assert machine == machines.from_dict(to_profile(facts, DAY))
    assert machines.from_dict(machines.to_dict(machine)).host == machine.host  # as a plan file carries it
    assert machine.gpu is None
    assert all(nbytes > 0 for nbytes in machine.budgets().values())
    assert machine.ram_budget_bytes < facts.system.ram_bytes
    processor = machine.host.processor
    assert [rows for rows, _ in processor.gemm_efficiency.points] == [1, 8, 64]
    assert all(0 < share <= 1 for _, share in processor.gemm_efficiency.points)
    assert max(share for _, share in processor.gemm_efficiency.points) == 1
    assert processor.attention is not None
    assert processor.overheads_s.keys() == set(OPS)
    assert processor.gemm_efficiencies.keys() == {"fp32", "fp16", "packed", "projections", "head"}
    assert processor.task_s > 0
    assert {fact.kind for fact in machine.facts} == {"measured", "assumed"}
    assert {f.field for f in machine.facts if f.kind == "assumed"} == {
        "host.power",
        "host.idle_share",
        "host.dram_power",
        "host.dram_idle_share",
        "host.rest_power",
        "host.supply_efficiency",
        "host.ram_reserve",
        "disk.power",
        "disk.idle_share",
        "machine.ram_budget",
    }
    assert "2030-01-02, specsim " in next(fact.source for fact in machine.facts if fact.field == "host.bf16")


def test_a_plan_for_it_succeeds(facts: Facts, tmp_path: Path) -> None:
    file = tmp_path / "here.yaml"
    file.write_text(dump_yaml(to_profile(facts, DAY)))
    target = plans.checkpoint(tmp_path / "target", plans.DRAFT)
    question = api.case(
        machine=str(file), ram=2**30, target=target, prompt_tokens=16, output_tokens=4, requests=4, draft="none"
    )
    plan = api.plan(question, fix={"strategy": "serial", "batch": 4})
    assert plan.case.machine.ram_budget_bytes == 2**30
    assert plan.predicted.tokens_per_second > 0


def test_a_gpu_and_its_link_are_parts_of_the_file(facts: Facts, tmp_path: Path) -> None:
    """Made-up numbers: how they are measured needs a card."""
    card = {name: fact for name, fact in facts.host.items() if name != "process"}
    card["vram_bandwidth"] = card.pop("dram_bandwidth")
    names = ("bandwidth", "efficiency", "pageable_efficiency", "latency")
    link = {name: Measured(value, 3, 0.0, "made up") for name, value in zip(names, (12e9, 1.0, 0.5, 1e-5), strict=True)}
    profile = to_profile(replace(facts, device=Device("Some Card", 8 * 2**30, card, link)), DAY)
    machine = machines.from_dict(profile)
    assert machine.gpu is not None
    assert machine.link is not None
    assert (machine.gpu.title, machine.vram_budget_bytes) == ("Some Card", 7 * 2**30)
    assert (machine.link.rate(pinned=True), machine.link.rate(pinned=False)) == (12e9, 6e9)
    file = tmp_path / "here.yaml"
    file.write_text(dump_yaml(profile))
    assert profiles.problems(file) == []


def test_noise_is_told_and_stands_beside_the_facts_of_its_part(facts: Facts) -> None:
    curve = Measured(Curve.flat(1.0), 3, 0.2, "products")
    noisy = replace(facts, host={"gemm_efficiency": curve}, disk={}, noise={"host": "noisy: somebody else"})
    assert warnings(noisy) == [
        "noisy: somebody else while the host was measured",
        "noisy: host.gemm_efficiency has a spread of 20%",
    ]
    assert to_profile(noisy, DAY)["host"]["sources"]["gemm_efficiency"]["why"] == "products; noisy: somebody else"


def test_probes_take_at_most_a_quarter_of_the_memory_and_room_for_a_matrix() -> None:
    large = replace(HOST, arena_bytes=2**30)
    assert large.within(2**40).arena_bytes == 2**30
    assert large.within(2**26).arena_bytes == 2**24
    assert replace(large, kept_width=1024 * 16).within(0).arena_bytes == 2**22
