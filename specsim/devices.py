"""Many like devices: what their machine's profile says of them, and which stream is whose.

Device 0 has the streams of a machine with one device ("gpu", "h2d.kv"), device 3 has "gpu@3" and "h2d.kv@3". What the
devices of a node share bears the number of the node's first device: the pool "dram@4" where nodes have four devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from specsim.errors import InputError
from specsim.facts import Value
from specsim.hardware import Machine

#: what a machine profile may say of its devices
FACTS: Final = ("devices", "node_devices", "node_cores", "peer", "peer_latency", "network", "network_latency")
#: starting one transfer between processes: an assumption, printed with every plan that rests on it
LATENCIES_S: Final = {"peer": 10e-6, "network": 50e-6}


def on(stream: str, device: int) -> str:
    """The stream of that name, or the pool, of device number `device`."""
    return f"{stream}@{device}" if device else stream


def device_of(stream: str) -> int:
    """The number of the device that a stream belongs to."""
    number = stream.partition("@")[2]
    return int(number) if number.isdecimal() else 0


def bare(stream: str) -> str:
    """A stream's name on device 0."""
    return stream.partition("@")[0]


def first_of_node(machine: Machine, device: int) -> int:
    """The first device of the node that `device` is in."""
    return device - device % machine.node_devices


def straddles(machine: Machine, stages: int, tensor: int) -> bool:
    """Whether devices of one tensor split would lie in different nodes. Groups are numbered from the first node on, so
    that within one node it does not matter which devices are left idle."""
    return tensor > machine.node_devices or (
        stages * tensor > machine.node_devices and machine.node_devices % tensor > 0
    )


def facts_of(machine: Machine) -> dict[str, Value]:
    """What a machine profile says of its devices; nothing where there is one."""
    if machine.devices == 1:
        return {}
    facts: dict[str, Value] = {"devices": float(machine.devices), "node_devices": float(machine.node_devices)}
    if machine.node_cores is not None:
        facts["node_cores"] = float(machine.node_cores)
    for name, peer in (("peer", machine.peer), ("network", machine.network)):
        if peer is not None:
            facts |= {name: peer.bytes_per_s, f"{name}_latency": peer.latency_s}
    return facts


def check(facts: Mapping[str, float], where: str) -> None:
    """Raise InputError for numbers of devices that contradict one another."""
    devices, node = int(facts.get("devices", 1)), int(facts.get("node_devices", 1))
    if devices == 1:
        extra = next((name for name in facts if name != "devices"), None)
        if extra is not None:
            raise InputError(f"{extra} is given for one device", where=where, hint="give --devices, or leave it out")
    elif node > devices or devices % node:
        what = f"{devices} devices cannot be in nodes of {node}"
        raise InputError(what, where=where, hint="a node's devices must divide all of them")
