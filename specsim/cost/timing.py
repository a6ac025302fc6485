"""Seconds of a piece of work on a machine when it runs alone, and the shared bandwidth that it uses meanwhile.

Compute (the roofline, Williams et al. 2009): overhead + max(FLOPs / (eff_c peak), bytes / (eff_b bandwidth)), and
where it was measured, what rows take between products; attention, where it was measured, a sum of its own terms; and
what a task takes in a run beyond all that, with other threads beside it and caches that others have filled.
Copies: latency + bytes / rate(pinned). A task of several works takes their sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from specsim.cost.work import Work
from specsim.devices import bare, device_of, first_of_node, on
from specsim.hardware import Curve, Machine, Op, Peer, Processor, TaskKind
from specsim.model import DTYPE_RATE

#: resources whose tasks copy rather than compute
COPY_RESOURCES: Final = frozenset({"h2d", "d2h", "disk", "peer"})
#: DRAM traffic per byte copied from pageable memory: read, write to the staging buffer, read by the DMA engine
PAGEABLE_TRAFFIC: Final = 3.0

Demand = tuple[tuple[str, float], ...]

#: the kind of task that an operation is the first of
_KIND: Final[Mapping[Op, TaskKind]] = {
    "projections": "attention",
    "attention": "attention",
    "expert": "ffn",
    "dense": "ffn",
    "head": "head",
}


def drafts(stream: str) -> bool:
    """Whether it is a stream of draft steps."""
    return stream.partition("@")[0].endswith(".draft")


def resource(stream: str) -> str:
    """The resource of a stream: "gpu.draft@2" queues apart from "gpu@2" and shares it, or takes turns with it."""
    name, at, device = stream.partition("@")
    return name.partition(".")[0] + at + device


def compute_seconds(processor: Processor, work: Work) -> float:
    if work.flops == 0 and work.bytes == 0:
        return 0.0
    return _beside_seconds(processor, work) + _alone_seconds(processor, work)


def _beside_seconds(processor: Processor, work: Work) -> float:
    """Overhead and, where it was measured, what rows take on their way: the time at a rate, that of so many rows that
    they keep the whole processor busy, and for fewer twice the geometric mean of both times on top."""
    overhead_s, passing_s = processor.overhead_s, 0.0
    if work.op is not None:
        overhead_s = processor.overheads_s.get(work.op, overhead_s)
        passing_s = work.activations / processor.activation_bytes_per_s.get(work.op, math.inf)
    return work.calls * overhead_s + 2 * math.sqrt(work.calls * overhead_s * passing_s) + passing_s


def _alone_seconds(processor: Processor, work: Work) -> float:
    """The operation itself."""
    attention = processor.attention if work.kind == "attention" else None
    if attention is not None:  # no roofline: caches are gathered first, then attended to
        kv_s = (work.bytes - work.activations) / attention.kv_bytes_per_s
        return work.sequences * attention.sequence_s + work.flops / attention.flops_per_s + kv_s
    dtype = DTYPE_RATE[work.dtype]
    if dtype not in processor.flops_per_s:
        dtype = "fp32"  # what a processor cannot do it converts
    attends = work.kind == "attention"
    efficiency = processor.attention_efficiency if attends else _curve(processor, dtype, work).at(work.rows)
    return max(work.flops / (efficiency * processor.flops_per_s[dtype]), memory_seconds(processor, work))


def _curve(processor: Processor, dtype: str, work: Work) -> Curve:
    curves = processor.gemm_efficiencies
    names = (dtype, "packed" if work.packed else "", work.op or "")
    return next((curves[name] for name in names if name in curves), processor.gemm_efficiency)


def memory_seconds(processor: Processor, work: Work) -> float:
    return work.bytes / (processor.bandwidth_efficiency * processor.bytes_per_s)


def copy_rate(machine: Machine, resource: str, *, pinned: bool) -> float:
    """Bytes per second of a large copy on "h2d", "d2h" or "disk": no faster than the memories at its ends."""
    dram = _reached(machine.host.processor)
    if resource == "disk":
        return min(machine.disk.rate(), dram)
    assert machine.link is not None, "a machine without a GPU has no link"
    assert machine.gpu is not None, "a link leads to a GPU"
    ends = (dram / (1.0 if pinned else PAGEABLE_TRAFFIC), _reached(machine.gpu.processor))
    return min(machine.link.rate(pinned=pinned), *ends)


def peer(machine: Machine, work: Work) -> Peer:
    """The way that a transfer between devices takes."""
    way = machine.network if work.far and machine.network is not None else machine.peer
    assert way is not None, "a machine with one device has no peers"
    return way


def copy_seconds(machine: Machine, resource: str, work: Work) -> float:
    if work.bytes == 0:
        return 0.0
    if resource == "peer":
        way = peer(machine, work)
        return work.calls * way.latency_s + work.bytes / way.bytes_per_s
    latency = machine.disk.latency_s if resource == "disk" else machine.link.latency_s  # type: ignore[union-attr]
    return work.calls * latency + work.bytes / copy_rate(machine, resource, pinned=work.pinned)


def seconds(machine: Machine, stream: str, works: Sequence[Work]) -> float:
    """Duration of a task on `stream` when nothing else runs."""
    name = bare(resource(stream))
    if name in COPY_RESOURCES:
        return sum(copy_seconds(machine, name, work) for work in works)
    processor = machine.processor(name)
    alone = sum(compute_seconds(processor, work) for work in works)
    if not alone:
        return 0.0
    if drafts(stream):
        return alone / processor.draft_efficiency + processor.task_s
    return alone + processor.task_s + _in_run_seconds(processor, works)


def _in_run_seconds(processor: Processor, works: Sequence[Work]) -> float:
    """By the kind of the task, which its first operation tells."""
    op = next((work.op for work in works if work.op is not None), None)
    return processor.in_run_s.get(_KIND[op], 0.0) if op is not None else 0.0


def demand(machine: Machine, stream: str, works: Sequence[Work], duration: float) -> Demand:
    """Share of each pool that the task uses while it runs at full speed.

    Pools: the resource itself (two streams of it share it), `dram` under the CPU and every copy out of or into RAM,
    `vram_bw` under the GPU and every copy over the link. The CPU and reads of the disk take a share of each other.
    Devices of a node share `dram`, `disk` and, beside GPUs, `cpu`; without GPUs each has its own, and where a node has
    fewer `cores` than they have together, these.
    """
    name, device = bare(resource(stream)), device_of(stream)
    if duration <= 0:
        return ()
    node = first_of_node(machine, device)
    traffic = sum(work.bytes for work in works)
    if name == "peer":
        return ((resource(stream), 1.0),)
    if name in COPY_RESOURCES:
        own = on(name, node if name == "disk" else device)
        return (own, 1.0), *_copy_demand(machine, name, device, works[0].pinned, traffic / duration)
    processor = machine.processor(name)
    share = min(1.0, sum(memory_seconds(processor, work) for work in works) / duration)
    if name == "gpu":
        return (on(name, device), 1.0), (on("vram_bw", device), share)
    lost = machine.disk.lost_share
    disk = [(on("disk", node), lost)] if lost else []
    return (_cpu(machine, device), 1.0), (on("dram", node), share), *disk, *_cores(machine, node)


def _cpu(machine: Machine, device: int) -> str:
    return on("cpu", device if machine.gpu is None else first_of_node(machine, device))


def _cores(machine: Machine, node: int) -> Demand:
    """What a busy CPU takes of the cores that devices share."""
    if machine.node_cores is None or machine.gpu is not None:
        return ()
    return ((on("cores", node), min(1.0, machine.host.cores / machine.node_cores)),)


def _copy_demand(machine: Machine, resource: str, device: int, pinned: bool, rate: float) -> Demand:
    factor = 1.0 if pinned or resource == "disk" else PAGEABLE_TRAFFIC
    node = first_of_node(machine, device)
    dram = (on("dram", node), min(1.0, factor * rate / _reached(machine.host.processor)))
    if resource == "disk" or machine.gpu is None:
        taken = min(1.0, rate / machine.disk.cpu_bytes_per_s)
        return (dram, (_cpu(machine, device), taken)) if taken else (dram,)
    vram = (on("vram_bw", device), min(1.0, rate / _reached(machine.gpu.processor)))
    if pinned:
        return dram, vram
    # The driver's memcpy into the staging buffer keeps one core busy.
    return dram, vram, (_cpu(machine, device), 1.0 / machine.host.cores)


def _reached(processor: Processor) -> float:
    return processor.bytes_per_s * processor.bandwidth_efficiency
