"""A case on several devices: which device runs which layers, and what of the case each of them has.

The devices of a tensor split do the same at the same time, each with its share, so that one of them stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from specsim.case import Case
from specsim.decision import LayerPlacement, Policy
from specsim.devices import first_of_node
from specsim.hardware import Machine
from specsim.model import Model
from specsim.partition import shard, stage_layers


@dataclass(frozen=True, slots=True)
class Layout:
    """`runs[n]` are the layers of stage n, whose first device is n * `tensor`. `far[n]`: the way from it to the next
    stage, or from the last one home, leads from node to node."""

    runs: tuple[range, ...]
    tensor: int = 1
    far: tuple[bool, ...] = (False,)

    def device(self, stage: int) -> int:
        """The number of the device that stands for a stage."""
        return stage * self.tensor


@dataclass(frozen=True, slots=True)
class Stage:
    """What one device has of a case: its `layers`, as the target of a `case` on a machine of its own, whose RAM is its
    share where GPUs share one host. Only the `first` stage has the embedding, the head and the draft."""

    layers: range
    device: int
    case: Case

    @property
    def first(self) -> bool:
        return self.device == 0

    def placed(self, layers: tuple[LayerPlacement, ...]) -> tuple[LayerPlacement, ...]:
        """Of the placement of all layers, that of its own."""
        return layers[self.layers.start : self.layers.stop]


def layout(case: Case, policy: Policy) -> Layout:
    """Where the layers are."""
    runs = stage_layers(case.target, policy.stages)
    nodes = [first_of_node(case.machine, stage * policy.tensor) for stage in range(policy.stages)]
    far = tuple(nodes[stage] != nodes[(stage + 1) % policy.stages] for stage in range(policy.stages))
    return Layout(runs, policy.tensor, far)


def one_share(case: Case, policy: Policy) -> Model:
    """What one device has of every layer that it has any of."""
    return shard(case.target, range(case.target.layers), policy.tensor)


def stages(case: Case, policy: Policy, *, busy: bool = False) -> tuple[Stage, ...]:
    """Every stage of a case; of one device, the case itself. `busy`: each at the rates that it has when all are."""
    if policy.stages == policy.tensor == 1:
        return (Stage(range(case.target.layers), 0, case),)
    machine = alone(case.machine, policy.stages * policy.tensor, busy=busy)
    found = []
    for number, layers in enumerate(stage_layers(case.target, policy.stages)):
        target = shard(case.target, layers, policy.tensor)
        draft = case.draft if number == 0 else None
        found.append(Stage(layers, number * policy.tensor, replace(case, machine=machine, target=target, draft=draft)))
    return tuple(found)


def alone(machine: Machine, used: int, *, busy: bool = False) -> Machine:
    """One of `used` devices of a machine, with its share of the RAM and, if `busy`, of the rates."""
    sharing = min(used, machine.node_devices)
    if machine.gpu is not None:
        others = (sharing - 1) * machine.host.process_bytes
        ram = max(0.0, machine.ram_budget_bytes - others) / sharing
        machine = replace(machine, ram_budget_bytes=ram)
    machine = among(machine, sharing) if busy else machine
    return replace(machine, devices=1, node_devices=1, node_cores=None)


def among(machine: Machine, sharing: int) -> Machine:
    """The machine with the rates that each of `sharing` devices of a node has, when all of them do the same."""
    if sharing == 1:
        return machine
    cores = 1 / sharing
    if machine.gpu is None:
        cores = 1.0 if machine.node_cores is None else min(1.0, machine.node_cores / (machine.host.cores * sharing))
    return machine.scaled(cpu=cores, dram=1 / sharing, disk=1 / sharing)
