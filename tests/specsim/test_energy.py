"""Watts from busy shares, joules and money from watts, and how long parts are busy over a whole job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specsim import machines
from specsim.energy import Energy, Tariff, cost_per_million, energy_of
from specsim.errors import InputError
from specsim.hardware import Peer
from specsim.model import FeedForward
from specsim.planfile import from_dict, to_dict
from specsim.planner.busy import job_busy_seconds
from specsim.simulator.job import simulate_job
from specsim.units import GiB
from tests.specsim import plans, stories


def test_each_part_draws_its_busy_power_while_busy_and_a_share_of_it_else() -> None:
    machine = stories.machine(ram=100 * GiB)
    assert machine.gpu is not None
    host = replace(
        machine.host,
        idle_share=0.5,
        dram_watts_per_gib=0.4,
        dram_idle_share=0.25,
        rest_watts=30.0,
        supply_efficiency=0.8,
    )
    machine = replace(machine, host=host, gpu=replace(machine.gpu, idle_share=0.1))
    energy = energy_of(machine, {"gpu": 5.0, "cpu": 10.0}, seconds=10.0, tokens=100)
    assert energy.watts == pytest.approx(
        {"rest": 30.0, "gpu": 200 * 0.55, "cpu": 100.0, "dram": 40 * 0.25, "disk": 0.0, "supply": 250 * 0.25}
    )
    assert energy.joules_per_token == pytest.approx(312.5 * 10 / 100)


def test_a_machine_without_a_gpu_has_no_gpu_that_draws() -> None:
    assert set(energy_of(stories.machine(bare=True), {}, 1.0, 1).watts) == {"rest", "cpu", "dram", "disk", "supply"}


def test_every_device_draws_and_every_node_once() -> None:
    """Two GPUs, one busy half of the time and one all of it, on one host."""
    machine = replace(stories.machine(), devices=2, node_devices=2)
    assert machine.gpu is not None
    machine = replace(machine, gpu=replace(machine.gpu, idle_share=0.1))
    watts = energy_of(machine, {"gpu": 5.0, "gpu@1": 10.0}, seconds=10.0, tokens=1).watts
    assert watts["gpu"] == pytest.approx(200 * (1.5 + 0.5 * 0.1))
    assert watts["rest"] == machine.host.rest_watts


def test_a_million_tokens_cost_their_electricity_and_their_share_of_the_hardware() -> None:
    energy = Energy({"gpu": 360.0}, seconds=100.0, tokens=1000)  # 36 J a token, 10 tokens/s
    assert cost_per_million(energy, Tariff()) is None
    assert cost_per_million(energy, Tariff(0.30)) == pytest.approx(36e6 / 3.6e6 * 0.30)
    year = 365.25 * 86400
    assert cost_per_million(energy, Tariff(0.30, 2.0), 630.0) == pytest.approx(3.0 + 630e6 / (2 * year * 10))
    assert cost_per_million(energy, Tariff(life_years=1.0), 10 * year) == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("tariff", "says"),
    [
        ({"per_kwh": -1.0}, "--electricity: the price of a kWh is -1.0; give zero or more"),
        ({"life_years": 0.0}, "--life: the life of hardware is 0.0 years; give years"),
    ],
)
def test_a_bad_tariff_is_told(tariff: dict[str, float], says: str) -> None:
    with pytest.raises(InputError) as error:
        Tariff(**tariff)
    assert str(error.value) == says


@pytest.mark.parametrize("gpu", [True, False])
def test_no_part_is_busy_for_longer_than_the_job_takes(gpu: bool) -> None:
    plan = plans.plan(gpu=gpu)
    job = simulate_job(plan.case, plan.decision)
    busy = job_busy_seconds(plan.case, plan.decision, job)
    assert set(busy) >= ({"gpu", "h2d", "cpu", "dram"} if gpu else {"cpu", "dram", "disk"})
    assert all(0 <= seconds <= job.makespan_s * (1 + 1e-9) for seconds in busy.values())
    assert busy["dram"] >= max(busy["cpu"], busy.get("h2d", 0.0))


def test_every_device_of_a_tensor_split_is_busy() -> None:
    """Where kernels take as long whatever their size, both are as busy as one alone would be."""
    target = stories.even(heads=2, kv_heads=2, ffn=FeedForward(4))
    kernel = stories.processor(overhead=4)
    one = stories.machine(gpu=kernel, cpu=kernel)
    two = replace(one, devices=2, node_devices=2, peer=Peer(4.0, 0.0))
    busy = []
    for machine, tensor in ((one, 1), (two, 2)):
        case, placed = stories.case(machine, target), stories.layers(target, "gpu", "vram")
        how = stories.decision("serial", placed, tensor=tensor)
        busy.append(job_busy_seconds(case, how, simulate_job(case, how)))
    assert busy[1]["gpu"] == pytest.approx(2 * busy[0]["gpu"])
    assert busy[1]["dram"] == pytest.approx(busy[0]["dram"])


def test_a_plan_says_what_a_token_takes_and_its_file_keeps_it() -> None:
    predicted = plans.plan().predicted
    watts = sum(predicted.watts.values())
    assert predicted.joules_per_token == pytest.approx(watts / predicted.tokens_per_second, rel=0.01)
    assert 75 < watts < (450 + 170 + 48 + 6 + 30) / 0.9
    assert from_dict(to_dict(plans.plan()), "here").predicted == predicted


def test_a_plan_file_of_before_has_no_joules() -> None:
    data = plans.data()
    del data["predicted"]["watts"], data["predicted"]["joules_per_token"]
    assert from_dict(data, "here").predicted.joules_per_token is None


def test_power_facts_are_announced_and_survive_the_plan_file() -> None:
    machine = machines.assemble(gpu="rtx3090")
    kinds = {fact.field: fact.kind for fact in machine.facts}
    assert [kinds[f"{part}.power"] for part in ("gpu", "host")] == ["datasheet", "datasheet"]
    assert {kinds[f] for f in ("gpu.idle_share", "host.dram_power", "host.supply_efficiency")} == {"assumed"}
    assert machines.from_dict(machines.to_dict(machine)) == machine
    assert machine.host.ram_max_bytes == 128 * GiB
    module = machines.assemble(gpu="h100-sxm")
    assert module.gpu is not None
    assert module.gpu.form == "SXM5"
    assert machines.from_dict(machines.to_dict(module)) == module
