"""Machines are assembled from names and numbers, say what was chosen for the caller, and read back equal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from specsim import profiles
from specsim.errors import InputError
from specsim.hardware import Fact, Machine
from specsim.machines import assemble, from_dict, to_dict
from specsim.units import GiB


def fact(machine: Machine, field: str) -> Fact:
    (found,) = [fact for fact in machine.facts if fact.field == field]
    return found


def test_a_gpu_alone_takes_its_default_host_and_says_so() -> None:
    machine = assemble(gpu="rtx4090")
    assert machine.name == "rtx4090 in desktop-ddr5-128g"
    assert (machine.main, machine.fast) == ("gpu", "vram")
    assert machine.link is not None
    assert (machine.host.name, machine.link.name, machine.disk.name) == (
        "desktop-ddr5-128g",
        "pcie4x16",  # the host offers pcie5x16, the card does not
        "nvme-gen4",
    )
    assert (machine.vram_budget_bytes, machine.ram_budget_bytes) == (23 * GiB, 121.5 * GiB)
    assert fact(machine, "machine.host") == Fact(
        "machine.host", "desktop-ddr5-128g", "assumed", "default host of rtx4090; choose with --host"
    )
    assert fact(machine, "machine.vram_budget").source == "vram less vram_reserve"
    assert fact(machine, "gpu.bf16").kind == "datasheet"


def test_the_link_is_the_slower_of_card_and_host() -> None:
    machine = assemble(gpu="rtx4090", host="env1")
    assert machine.link is not None
    assert machine.link.name == "pcie3x16"
    assert fact(machine, "machine.link").source == "the slower of what rtx4090 (pcie4x16) and env1 (pcie3x16) support"
    assert "machine.host" not in {fact.field for fact in machine.facts}


def test_a_machine_profile_equals_its_parts() -> None:
    named, parts = assemble(machine="env1"), assemble(gpu="rtx4090", host="env1")
    assert (named.gpu, named.host, named.link, named.disk) == (parts.gpu, parts.host, parts.link, parts.disk)
    assert named.name == "env1"


@pytest.mark.parametrize("given", [{"host": "desktop-ddr5-64g"}, {"gpu": "none", "host": "desktop-ddr5-64g"}])
def test_a_host_alone_is_a_machine_without_a_gpu(given: dict[str, Any]) -> None:
    machine = assemble(**given)
    assert (machine.gpu, machine.link, machine.vram_budget_bytes) == (None, None, 0.0)
    assert (machine.main, machine.fast) == ("cpu", "ram")
    assert machine.budgets() == {"ram": 57.5 * GiB, "disk": 2e12}
    assert assemble(machine="desktop-cpu").host == machine.host


def test_budgets_are_what_was_given_even_beyond_the_card() -> None:
    machine = assemble(gpu="rtx4090", vram=40.0 * GiB, ram=20.0 * GiB)
    assert machine.budgets() == {"vram": 40 * GiB, "ram": 20 * GiB, "disk": 2e12}
    assert fact(machine, "machine.vram_budget") == Fact("machine.vram_budget", "40 GiB", "given", "--vram")


@pytest.mark.parametrize(("rate", "pageable"), [(2e9, 1 / (1 / 2e9 + 1 / 9.6e9)), (64e9, 1 / (1 / 64e9 + 1 / 9.6e9))])
def test_a_given_link_rate_is_what_pinned_copies_reach(rate: float, pageable: float) -> None:
    machine = assemble(machine="env1", link_bytes_per_s=rate)
    assert machine.link is not None
    assert machine.link.rate(pinned=True) == rate
    assert machine.link.rate(pinned=False) == pytest.approx(pageable, rel=2e-3)
    assert machine.link.rate(pinned=False) < rate
    assert fact(machine, "link.bandwidth").kind == "given"
    assert fact(machine, "link.efficiency").value == "1"
    assert fact(machine, "link.pageable_efficiency").kind == "assumed"


def test_a_given_disk_rate_is_what_reads_reach() -> None:
    machine = assemble(machine="env1", disk="nvme-gen5", disk_bytes_per_s=1.3e9)
    assert (machine.disk.name, machine.disk.rate()) == ("nvme-gen5", 1.3e9)
    assert fact(machine, "disk.bandwidth").value == "1.3 GB/s"
    assert fact(machine, "machine.disk") == Fact("machine.disk", "nvme-gen5", "given", "--disk")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no machine is given; give --gpu NAME, --host NAME or --machine NAME"),
        ({"gpu": "none"}, "no host is given; give --gpu NAME, --host NAME"),
        (
            {"machine": "env1", "gpu": "rtx4090"},
            "a machine and a GPU or host are given; give --machine alone",
        ),
        ({"host": "env1", "vram": 1e9}, "env1: a VRAM budget is given for a machine without a GPU"),
        ({"host": "env1", "link": "pcie4x16"}, "env1: a link is given for a machine without a GPU"),
        ({"host": "env1", "link_bytes_per_s": 1e9}, "env1: a link rate is given for a machine without a GPU"),
        ({"gpu": "rtx4090", "ram": 0.0}, "ram is 0.0; give a number above zero"),
        ({"gpu": "rtx4091"}, "unknown gpu 'rtx4091'; did you mean rtx4090"),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        assemble(**given)
    assert str(caught.value).startswith(message)


VARIANTS: list[dict[str, Any]] = [
    {"gpu": "rtx4090"},
    {"gpu": "h200", "link": "pcie4x8", "vram": 20e9},
    {"machine": "env2", "link_bytes_per_s": 8e9, "disk_bytes_per_s": 1e9 / 3},
    {"machine": "desktop-cpu", "ram": 1e9},
]


@pytest.mark.parametrize("given", VARIANTS)
def test_a_machine_reads_back_equal(given: dict[str, Any]) -> None:
    machine = assemble(**given)
    assert from_dict(to_dict(machine)) == machine
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(machine)))) == machine
    assert from_dict(json.loads(json.dumps(to_dict(machine)))) == machine


def test_every_shipped_gpu_and_host_reads_back_equal() -> None:
    for name in profiles.names("gpu"):
        machine = assemble(gpu=name)
        assert from_dict(to_dict(machine)) == machine
    for name in profiles.names("host"):
        machine = assemble(host=name)
        assert from_dict(to_dict(machine)) == machine


def test_a_machine_without_facts_reads_back_without_facts() -> None:
    bare = replace(assemble(machine="env1"), facts=())
    assert from_dict(to_dict(bare)) == bare


def test_how_the_disk_is_read_is_assumed_or_part_of_the_file() -> None:
    machine = assemble(machine="desktop-cpu")
    assert (machine.disk.queue_depth, machine.disk.block_bytes) == (1, 64 * 2**20)
    assert {fact(machine, f"disk.{name}").kind for name in ("queue_depth", "read_block")} == {"assumed"}
    deeper = replace(machine, disk=replace(machine.disk, queue_depth=4, block_bytes=2**24))
    assert from_dict(to_dict(deeper)).disk == deeper.disk


def test_what_if_values_are_marked_as_changed() -> None:
    faster = assemble(machine="env1").scaled(link=2.0)
    back = from_dict(to_dict(faster))
    assert back.link == faster.link
    assert fact(back, "link.bandwidth") == Fact("link.bandwidth", "31.508 GB/s", "given", "changed from 15.754 GB/s")


def test_what_was_written_is_a_machine_profile(tmp_path: Path) -> None:
    path = tmp_path / "here.yaml"
    machine = assemble(gpu="t4", host="env2", ram=30e9)
    path.write_text(yaml.safe_dump(to_dict(machine)))
    assert profiles.problems(path) == []
    assert assemble(machine=str(path)) == machine
    assert assemble(machine=str(path), ram=10e9).budgets()["ram"] == 10e9


def test_values_are_written_as_their_profile_states_them() -> None:
    written = to_dict(assemble(machine="env1"))
    assert written["gpu"]["facts"]["vram_bandwidth"][0] == "1008 GB/s"
    assert written["gpu"]["facts"]["gemm_efficiency"][0] == 0.7
    assert written["host"]["facts"]["cores"][0] == 18
    assert written["facts"]["vram_budget"][0] == "23 GiB"
    assert to_dict(assemble(machine="desktop-cpu"))["gpu"] == "none"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("gpu", "facts", "vram", 0),
            "24 GB/s",
            "plan.yaml: machine: gpu: facts.vram: '24 GB/s' has unit 'GB/s'",
        ),
        (("host", "colour"), "red", "plan.yaml: machine: host: unknown key 'colour'"),
        (
            ("gpu", "facts", "vram_reserve", 0),
            -1,
            "plan.yaml: machine: gpu: facts.vram_reserve: '-1' has no unit",
        ),
        (
            ("link", "schema"),
            "specsim.disk/1",
            "plan.yaml: machine: link: schema is 'specsim.disk/1'; write specsim.link/1",
        ),
        (("gpu",), "rtx4091", "unknown gpu 'rtx4091'; did you mean rtx4090"),
        (("gpu",), "none", "plan.yaml: machine: a link is given for a machine without a GPU"),
    ],
)
def test_a_bad_key_is_named(path: tuple[str | int, ...], value: Any, message: str) -> None:
    data: Any = to_dict(assemble(machine="env1"))
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(InputError) as caught:
        from_dict(data, where="plan.yaml: machine")
    assert str(caught.value).startswith(message)


def test_a_reserve_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    data = to_dict(assemble(machine="desktop-cpu"))
    del data["facts"]["ram_budget"]
    data["sources"] = {key: s for key, s in data["sources"].items() if s["why"] != "ram less ram_reserve and process"}
    data["host"]["facts"]["ram"][0] = "4 GiB"
    with pytest.raises(InputError, match="ram of 4 GiB leaves nothing beside a reserve of 6 GiB; set --ram"):
        from_dict(data)
