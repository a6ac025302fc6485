"""What a profile must say: its outer shape, the facts of each kind with their dimensions, and the defaults.

A fact is written `[value, source key]`; every source key is explained under `sources`. Defaults are listed
here and nowhere else, and come out with kind "assumed", so that a plan can announce them.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from specsim.facts import OPTIONAL, Rule
from specsim.hardware import CURVES, OPS, TASK_KINDS

_GEMM = "share of the peak that large matrix products usually reach"
_ATTENTION = "share of the peak that attention kernels usually reach"
_BANDWIDTH = "share of the peak bandwidth that streaming reads usually reach"
_COPY = "cost of starting one copy"
_OVERHEAD = "cost of starting one task"
_CLOCKS = "a running job keeps clocks up between its tasks; share of the power when busy"
_DRAM = "per GiB when busy: 32 GB of DDR4 drew 11.85 W under load (Tom's Hardware, 2014-08-29)"
_PROJECTIONS = "overhead_projections"  # what is measured with it takes the place of `overhead`
_MEASURED = {
    **{f"gemm_efficiency_{of}": Rule("curve", OPTIONAL) for of in CURVES},
    **{f"overhead_{op}": Rule("seconds", OPTIONAL, zero=True) for op in OPS},
    **{f"activations_{op}": Rule("bytes/s", OPTIONAL) for op in OPS},
    "attention_sequence": Rule("seconds", OPTIONAL, zero=True),
    "attention_flops": Rule("FLOP/s", OPTIONAL),
    "attention_kv": Rule("bytes/s", OPTIONAL),
    "task_overhead": Rule("seconds", OPTIONAL, zero=True),
    **{f"in_run_{kind}": Rule("seconds", OPTIONAL, zero=True) for kind in TASK_KINDS},
    "draft_efficiency": Rule("ratio", OPTIONAL),
}
_FLOPS = {"fp32": Rule("FLOP/s"), "bf16": Rule("FLOP/s")} | {
    dtype: Rule("FLOP/s", OPTIONAL) for dtype in ("fp16", "int8")
}

FACTS: Final[dict[str, dict[str, Rule]]] = {
    "gpu": {
        "vram": Rule("bytes"),
        "vram_bandwidth": Rule("bytes/s"),
        **_FLOPS,
        "power": Rule("watts"),
        "vram_reserve": Rule("bytes", "1 GiB", "context, display and allocator rounding", zero=True),
        "gemm_efficiency": Rule("curve", 0.70, _GEMM),
        "attention_efficiency": Rule("ratio", 0.50, _ATTENTION, instead="attention_sequence"),
        "bandwidth_efficiency": Rule("ratio", 0.80, _BANDWIDTH),
        "overhead": Rule("seconds", "20 us", _OVERHEAD, zero=True, instead=_PROJECTIONS),
        **_MEASURED,
        "idle_share": Rule("ratio", 0.20, _CLOCKS, zero=True),
        "form": Rule("name", OPTIONAL),
    },
    "host": {
        "cores": Rule("count"),
        "sockets": Rule("count"),
        "ram": Rule("bytes"),
        "dram_bandwidth": Rule("bytes/s"),
        **_FLOPS,
        "power": Rule("watts"),
        "ram_reserve": Rule("bytes", "6 GiB", "operating system and other programs", zero=True),
        "process": Rule("bytes", "512 MiB", "interpreter, libraries and threads, beside what they store", zero=True),
        "gemm_efficiency": Rule("curve", 0.50, _GEMM),
        "attention_efficiency": Rule("ratio", 0.25, _ATTENTION, instead="attention_sequence"),
        "bandwidth_efficiency": Rule("ratio", 0.75, _BANDWIDTH),
        "overhead": Rule("seconds", "30 us", _OVERHEAD, zero=True, instead=_PROJECTIONS),
        **_MEASURED,
        "ram_max": Rule("bytes", OPTIONAL),
        "idle_share": Rule("ratio", 0.25, _CLOCKS, zero=True),
        "dram_power": Rule("watts", "0.37 W", _DRAM, zero=True),
        "dram_idle_share": Rule("ratio", 0.40, "refresh and clocks; share of the power when busy", zero=True),
        "rest_power": Rule("watts", "30 W", "mainboard, fans, what else draws all the time", zero=True),
        "supply_efficiency": Rule("ratio", 0.90, "80 PLUS Gold at half load"),
    },
    "link": {
        "bandwidth": Rule("bytes/s"),
        "efficiency": Rule("ratio", 0.80, "packet headers and flow control"),
        "pageable_efficiency": Rule("ratio"),
        "latency": Rule("seconds", "15 us", _COPY, zero=True),
    },
    "disk": {
        "capacity": Rule("bytes"),
        "bandwidth": Rule("bytes/s"),
        "power": Rule("watts"),
        "efficiency": Rule("ratio", 0.85, "file system and sustained heat"),
        "latency": Rule("seconds", "100 us", "one random read", zero=True),
        "queue_depth": Rule("count", 1, "a large read past the page cache fills the disk's queue by itself"),
        "read_block": Rule("bytes", "64 MiB", "most parts of a model are read by one call"),
        "cpu_rate": Rule("bytes/s", OPTIONAL),
        "lost_to_cpu": Rule("ratio", OPTIONAL, zero=True),
        "idle_share": Rule("ratio", 0.20, "awake between reads; share of the power when busy", zero=True),
    },
    "machine": {
        "host": Rule("name", OPTIONAL),
        "link": Rule("name", OPTIONAL),
        "disk": Rule("name", OPTIONAL),
        "vram_budget": Rule("bytes", OPTIONAL, zero=True),
        "ram_budget": Rule("bytes", OPTIONAL, zero=True),
        "devices": Rule("count", OPTIONAL),
        "node_devices": Rule("count", OPTIONAL),
        "node_cores": Rule("count", OPTIONAL),
        "peer": Rule("bytes/s", OPTIONAL),
        "peer_latency": Rule("seconds", OPTIONAL, zero=True),
        "network": Rule("bytes/s", OPTIONAL),
        "network_latency": Rule("seconds", OPTIONAL, zero=True),
    },
    "workload": {
        "prompt_tokens_mean": Rule("number"),
        "prompt_tokens_max": Rule("count"),
        "prompt_tokens_min": Rule("count"),
        "output_tokens": Rule("count"),
        "requests": Rule("count"),
    },
    "pair": {"acceptance": Rule("hazards"), "spread": Rule("ratio", OPTIONAL, zero=True)},
}


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where numbers come from. `unstated` stands only in plan files, for a machine built without facts."""

    kind: Literal["datasheet", "published", "measured", "fitted", "assumed", "given", "unstated"]
    document: str | None = None
    why: str | None = None
    date: str | None = None
    tool: str | None = None
    n: int | None = None
    spread: str | None = None

    def missing(self) -> str:
        """What this kind of source has to say and does not, or ""."""
        if self.kind in ("assumed", "given"):
            return "" if self.why else "why"
        if self.kind == "measured" and self.document is None:
            return ", ".join(key for key in ("date", "tool", "n", "spread") if getattr(self, key) is None)
        return "" if self.document or self.kind in ("measured", "unstated") else "document"

    def text(self) -> str:
        """One line for a table."""
        counts = [f"n={self.n}"] if self.n is not None else []
        spread = [f"spread {self.spread}"] if self.spread else []
        words = [self.document or "", self.why or "", self.date or "", self.tool or "", *counts, *spread]
        return ", ".join(word for word in words if word)


class File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every profile has."""

    schema: str
    name: str
    title: str
    sources: dict[str, Source] = {}
    facts: dict[str, Any] = {}


class GpuFile(File, kw_only=True, forbid_unknown_fields=True):
    link: str
    host: str


class HostFile(File, kw_only=True, forbid_unknown_fields=True):
    link: str
    disk: str


class MachineFile(File, kw_only=True, forbid_unknown_fields=True):
    """Each part is a profile's name or an inline section with the same keys as a profile of that kind."""

    gpu: str | dict[str, Any]
    host: str | dict[str, Any]
    link: str | dict[str, Any] | None = None
    disk: str | dict[str, Any] | None = None


class PairFile(File, kw_only=True, forbid_unknown_fields=True):
    target: str
    draft: str
    text: str


FILES: Final[dict[str, type[File]]] = {
    "gpu": GpuFile,
    "host": HostFile,
    "link": File,
    "disk": File,
    "machine": MachineFile,
    "workload": File,
    "pair": PairFile,
}
