"""Machines of many devices: what their profile says of them, and how a model is cut for them."""

from __future__ import annotations

import pytest

from specsim import machines
from specsim.devices import device_of, on
from specsim.errors import InputError
from specsim.partition import layer_units, shard, stage_layers
from specsim.question import model

LLAMA = model("llama-2-70b")


def test_gpus_share_one_host_and_talk_through_it_unless_said_otherwise() -> None:
    machine = machines.assemble(gpu="mi250", devices=8)
    assert machine.link is not None
    assert machine.peer is not None
    assert (machine.devices, machine.node_devices) == (8, 8)
    assert machine.peer.bytes_per_s == machine.link.rate(pinned=True)
    assumed = {fact.field for fact in machine.facts if fact.kind == "assumed"}
    assert {"machine.node_devices", "machine.peer", "machine.peer_latency"} <= assumed


def test_bare_machines_share_nothing_and_do_not_guess_how_they_talk() -> None:
    with pytest.raises(InputError, match="give --peer"):
        machines.assemble(machine="desktop-cpu", devices=4)
    machine = machines.assemble(machine="desktop-cpu", devices=4, peer=1.2e9)
    assert machine.node_devices == 1


def test_devices_read_back_as_they_were_written() -> None:
    machine = machines.assemble(gpu="mi250", devices=8, peer=50e9)
    assert machines.from_dict(machines.to_dict(machine)) == machine


def test_a_machine_with_one_device_says_nothing_of_devices() -> None:
    written = machines.to_dict(machines.assemble(gpu="mi250"))
    assert not {"devices", "peer", "node_devices"} & written["facts"].keys()


def test_a_peer_of_one_device_is_refused() -> None:
    with pytest.raises(InputError, match="peer is given for one device"):
        machines.assemble(gpu="mi250", peer=50e9)


def test_one_device_of_several_talks_to_none() -> None:
    """So that the number of devices can be varied, and starts at one."""
    assert machines.assemble(gpu="mi250", devices=1, peer=50e9) == machines.assemble(gpu="mi250")
    assert machines.assemble(machine="8xmi250", devices=1).peer is None


def test_devices_that_do_not_fill_their_nodes_are_refused() -> None:
    written = machines.to_dict(machines.assemble(gpu="mi250", devices=8, peer=50e9))
    written["facts"]["node_devices"][0] = 3
    with pytest.raises(InputError, match="8 devices cannot be in nodes of 3"):
        machines.from_dict(written)


def test_device_0_has_the_streams_of_a_machine_with_one_device() -> None:
    assert (on("h2d.kv", 0), on("h2d.kv", 3)) == ("h2d.kv", "h2d.kv@3")
    assert (device_of("gpu"), device_of("gpu.draft@12")) == (0, 12)


@pytest.mark.parametrize(("stages", "layers"), [(1, [80]), (3, [26, 27, 27]), (8, [10] * 8)])
def test_stages_are_runs_of_layers_as_even_as_can_be(stages: int, layers: list[int]) -> None:
    runs = stage_layers(LLAMA, stages)
    assert [len(run) for run in runs] == layers
    assert [layer for run in runs for layer in run] == list(range(80))


def test_the_first_stage_has_fewer_layers_where_the_head_is_large() -> None:
    assert [len(run) for run in stage_layers(model("qwen2.5-0.5b"), 4)] == [1, 7, 8, 8]


def test_no_stage_is_empty() -> None:
    with pytest.raises(InputError, match="80 layers for 81 stages"):
        stage_layers(LLAMA, 81)


def test_shares_of_a_tensor_split_add_up() -> None:
    """But for the norms and what is aligned, which every device holds whole."""
    share = shard(LLAMA, range(80), 8)
    whole, part = (layer_units(m, m.ffn, 1 << 40) for m in (LLAMA, share))
    norms = 2 * LLAMA.hidden * LLAMA.element_bytes
    assert 8 * (part.attention_bytes - norms) == whole.attention_bytes - norms
    assert 8 * part.part_bytes == whole.part_bytes
    assert share.hidden == LLAMA.hidden


def test_a_share_must_be_whole() -> None:
    with pytest.raises(InputError, match="8 KV heads of 'llama-2-70b' do not divide by 3"):
        shard(LLAMA, range(80), 3)
