"""The machine as frozen values: GPU, host, link and disk, each a handful of rates and capacities.

Base units throughout (bytes, bytes/s, FLOP/s, seconds, watts). Rates are datasheet peaks; what a kernel or a copy
reaches of them is the efficiency beside them, which is measured or a stated
assumption.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final, Literal, get_args

#: operations that are measured apart: the products around attention, its core, an expert or a dense FFN, logits
Op = Literal["projections", "attention", "expert", "dense", "head"]
OPS: Final[tuple[Op, ...]] = get_args(Op)
TaskKind = Literal["attention", "ffn", "head"]
TASK_KINDS: Final[tuple[TaskKind, ...]] = get_args(TaskKind)
#: the name of a GPU that is played by the CPU, and of its link
EMULATED: Final = "emulated"
#: processors whose streams take turns where there is no real GPU
IN_TURN: Final = frozenset({"cpu", "gpu"})
CURVES: Final = ("fp32", "fp16", "packed", *OPS)


@dataclass(frozen=True, slots=True)
class Curve:
    """An efficiency (0..1] by number of rows: points in rising rows, linear in log(rows) between, flat outside."""

    points: tuple[tuple[float, float], ...]

    @classmethod
    def flat(cls, value: float) -> Curve:
        return cls(((1.0, value),))

    def at(self, rows: float) -> float:
        points = self.points
        if rows <= points[0][0]:
            return points[0][1]
        for (x0, y0), (x1, y1) in pairwise(points):
            if rows < x1:
                return y0 + (y1 - y0) * math.log(rows / x0) / math.log(x1 / x0)
        return points[-1][1]


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """What an attention core takes where it was measured, in place of a roofline: the sum of what its sequences take,
    the FLOPs of its (query, key) pairs, and the bytes of K and V that it gathers."""

    sequence_s: float
    flops_per_s: float
    kv_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Processor:
    """What computes: peaks by dtype and the memory bandwidth under them, with the share of each that is reached.

    `flops_per_s[dtype]` is dense matrix throughput with fp32 accumulation; `gemm_efficiency` is by rows of the
    product; `overhead_s` is paid for every operation (kernel launches, or the fork and join of a CPU thread team).

    The rest is known only of a processor that was measured: curves that differ (`CURVES`), by dtype, else for weights
    that are laid out for products, else by operation (`OPS`); by operation its overhead in place of the one, and the
    rate at which rows pass through all in it that is no product; attention in place of a share of the peak; what
    starting a task costs, and what those of a kind take in a run beyond what their pieces take in a row; for the draft
    the share of its pieces' speed that its steps have there.
    """

    flops_per_s: Mapping[str, float]
    bytes_per_s: float
    gemm_efficiency: Curve
    attention_efficiency: float
    bandwidth_efficiency: float
    overhead_s: float
    gemm_efficiencies: Mapping[str, Curve] = field(default_factory=dict)
    overheads_s: Mapping[Op, float] = field(default_factory=dict)
    activation_bytes_per_s: Mapping[Op, float] = field(default_factory=dict)
    attention: AttentionCost | None = None
    task_s: float = 0.0
    in_run_s: Mapping[TaskKind, float] = field(default_factory=dict)
    draft_efficiency: float = 1.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """`power_watts` is what the board draws when it computes, and `idle_share` of that between a job's kernels. `form`
    is "" for a card that fits a PCIe slot, else the module that it is."""

    name: str
    title: str
    vram_bytes: float
    processor: Processor
    link: str  # name of the widest link that the card supports
    host: str  # the host that `--gpu NAME` alone assumes
    power_watts: float
    idle_share: float = 0.0
    form: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """`process_bytes` is what a process that runs a plan takes of the RAM beside its stores; `ram_max_bytes` is the
    most RAM that the board holds. `power_watts` is what the processors draw when they compute, `dram_watts_per_gib`
    the RAM when it is read, with the share of each that is drawn else; `rest_watts` is drawn all the time, and the
    power supply loses 1 - `supply_efficiency` of what it takes from the wall."""

    name: str
    title: str
    cores: int
    sockets: int
    ram_bytes: float
    processor: Processor
    link: str  # name of the widest link that the mainboard offers
    disk: str
    power_watts: float
    process_bytes: float
    ram_max_bytes: float = math.inf
    idle_share: float = 0.0
    dram_watts_per_gib: float = 0.0
    dram_idle_share: float = 0.0
    rest_watts: float = 0.0
    supply_efficiency: float = 1.0


@dataclass(frozen=True, slots=True)
class Link:
    """The way between RAM and VRAM. `efficiency` is the share of the raw rate that a large pinned copy reaches;
    `pageable_efficiency` that of a copy from pageable memory, which the driver stages through a pinned buffer."""

    name: str
    title: str
    bytes_per_s: float  # raw, per direction
    efficiency: float
    pageable_efficiency: float
    latency_s: float

    def rate(self, *, pinned: bool) -> float:
        """Bytes per second of a large copy."""
        return self.bytes_per_s * (self.efficiency if pinned else self.pageable_efficiency)


@dataclass(frozen=True, slots=True)
class Peer:
    """The way from one device to another; `bytes_per_s` is what a large transfer reaches, per direction."""

    bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Disk:
    """Reached by `queue_depth` threads, each reading blocks of `block_bytes`.

    Where it was measured: so many bytes read take a second of the whole CPU, and a busy CPU takes that share of the
    disk's rate.
    """

    name: str
    title: str
    capacity_bytes: float
    bytes_per_s: float  # sequential read, datasheet
    efficiency: float
    latency_s: float
    power_watts: float
    queue_depth: int
    block_bytes: int
    cpu_bytes_per_s: float = math.inf
    lost_share: float = 0.0
    idle_share: float = 0.0  # of the power when busy, between a job's reads

    def rate(self) -> float:
        return self.bytes_per_s * self.efficiency


@dataclass(frozen=True, slots=True)
class Fact:
    """Where one number of a machine came from: `field` as in "gpu.vram", its value as written, and its source."""

    field: str
    value: str
    kind: str  # datasheet, measured, fitted, assumed, given
    source: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A host with at most one kind of GPU. Without one, `cpu` computes, `ram` is the fast memory and weights stream
    from disk.

    `vram_budget_bytes` and `ram_budget_bytes` are what a plan may use: capacity less what the system keeps, and of RAM
    less what the process itself takes.

    There may be several like `devices`, a process each, numbered from 0. A device is a GPU with its VRAM and its link;
    those of a node share the host. On a bare machine a device is a CPU as `host` has it, with its own RAM budget; those
    of a node share the disk, the DRAM's bandwidth and, where they are fewer than all have together, `node_cores`.
    Neighbours in a node talk over `peer`, others over `network` (None: likewise over `peer`).
    """

    name: str
    host: Host
    disk: Disk
    gpu: Gpu | None = None
    link: Link | None = None
    vram_budget_bytes: float = 0.0
    ram_budget_bytes: float = 0.0
    facts: tuple[Fact, ...] = field(default=())
    devices: int = 1
    node_devices: int = 1
    node_cores: int | None = None
    peer: Peer | None = None
    network: Peer | None = None

    @property
    def main(self) -> str:
        """The processor that runs the target's layers by default: "gpu", or "cpu" where there is none."""
        return "gpu" if self.gpu else "cpu"

    @property
    def fast(self) -> str:
        """The memory beside the main processor: "vram" or "ram"."""
        return "vram" if self.gpu else "ram"

    @property
    def in_turn(self) -> frozenset[str]:
        """Processors whose streams take turns, since one team of threads computes for all streams of each: a CPU
        without a GPU beside it, and both where it plays the GPU. Beside a real GPU all streams run side by side."""
        return IN_TURN if self.gpu is None or self.gpu.name == EMULATED else frozenset()

    def processor(self, name: str) -> Processor:
        """The processor called "gpu" or "cpu"."""
        if name == "gpu":
            assert self.gpu is not None, "a machine without a GPU has no gpu tasks"
            return self.gpu.processor
        return self.host.processor

    def budgets(self) -> dict[str, float]:
        """Bytes that a plan may use, by memory."""
        slow = {"ram": self.ram_budget_bytes, "disk": self.disk.capacity_bytes}
        return {"vram": self.vram_budget_bytes, **slow} if self.gpu else slow

    def scaled(self, **factors: float) -> Machine:
        """A copy with resources multiplied: `gpu`, `vram_bw`, `vram`, `cpu`, `dram`, `ram`, `link`, `disk`, `peer`."""
        machine = self
        for resource, factor in factors.items():
            machine = _SCALE[resource](machine, factor)
        return machine


def _faster(processor: Processor, flops: float = 1.0, bandwidth: float = 1.0) -> Processor:
    """Overheads, and rows that pass through caches, stay as slow as they are."""
    rates = {dtype: rate * flops for dtype, rate in processor.flops_per_s.items()}
    attention = processor.attention
    if attention is not None:
        kv = attention.kv_bytes_per_s * bandwidth
        attention = replace(attention, flops_per_s=attention.flops_per_s * flops, kv_bytes_per_s=kv)
    bytes_per_s = processor.bytes_per_s * bandwidth
    return replace(processor, flops_per_s=rates, bytes_per_s=bytes_per_s, attention=attention)


def _scale_gpu(m: Machine, flops: float = 1.0, bandwidth: float = 1.0) -> Machine:
    return replace(m, gpu=replace(m.gpu, processor=_faster(m.gpu.processor, flops, bandwidth))) if m.gpu else m


def _scale_host(m: Machine, flops: float = 1.0, bandwidth: float = 1.0) -> Machine:
    return replace(m, host=replace(m.host, processor=_faster(m.host.processor, flops, bandwidth)))


def _scale_link(m: Machine, factor: float) -> Machine:
    return replace(m, link=replace(m.link, bytes_per_s=m.link.bytes_per_s * factor)) if m.link else m


def _scale_peers(m: Machine, factor: float) -> Machine:
    def faster(way: Peer | None) -> Peer | None:
        return way and replace(way, bytes_per_s=way.bytes_per_s * factor)

    return replace(m, peer=faster(m.peer), network=faster(m.network))


_SCALE: dict[str, Callable[[Machine, float], Machine]] = {
    "gpu": lambda m, f: _scale_gpu(m, flops=f),
    "vram_bw": lambda m, f: _scale_gpu(m, bandwidth=f),
    "vram": lambda m, f: replace(m, vram_budget_bytes=m.vram_budget_bytes * f),
    "cpu": lambda m, f: _scale_host(m, flops=f),
    "dram": lambda m, f: _scale_host(m, bandwidth=f),
    "ram": lambda m, f: replace(m, ram_budget_bytes=m.ram_budget_bytes * f),
    "link": _scale_link,
    "disk": lambda m, f: replace(m, disk=replace(m.disk, bytes_per_s=m.disk.bytes_per_s * f)),
    "peer": _scale_peers,
}
