"""The parts of a Machine written as profile sections: every value exact, with its fact's source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from specsim.errors import InputError
from specsim.facts import Value, parse, text, write
from specsim.hardware import Fact, Machine, Processor
from specsim.schema import FACTS


def sections(machine: Machine, facts: Mapping[str, Fact]) -> dict[str, dict[str, Any]]:
    """`gpu`, `host`, `link` and `disk` as inline sections of a machine profile; those that there are."""
    host, disk, gpu, link = machine.host, machine.disk, machine.gpu, machine.link
    written = {}
    if gpu:
        values = _processor(gpu.processor, "vram_bandwidth") | {
            "vram": gpu.vram_bytes,
            "power": gpu.power_watts,
            "idle_share": gpu.idle_share,
        }
        if gpu.form:
            values["form"] = gpu.form
        values["vram_reserve"] = _reserve(facts, "gpu.vram_reserve")
        written["gpu"] = section("gpu", gpu.name, gpu.title, values, facts)
        written["gpu"] |= {"link": gpu.link, "host": gpu.host}
    values = _processor(host.processor, "dram_bandwidth") | {"ram": host.ram_bytes, "power": host.power_watts}
    values |= {"cores": float(host.cores), "sockets": float(host.sockets)}
    values |= {"ram_reserve": _reserve(facts, "host.ram_reserve"), "process": host.process_bytes}
    values |= {"ram_max": host.ram_max_bytes, "idle_share": host.idle_share, "rest_power": host.rest_watts}
    values |= {"dram_power": host.dram_watts_per_gib, "dram_idle_share": host.dram_idle_share}
    values["supply_efficiency"] = host.supply_efficiency
    written["host"] = section("host", host.name, host.title, values, facts)
    written["host"] |= {"link": host.link, "disk": host.disk}
    if link:
        values = {"bandwidth": link.bytes_per_s, "efficiency": link.efficiency, "latency": link.latency_s}
        values["pageable_efficiency"] = link.pageable_efficiency
        written["link"] = section("link", link.name, link.title, values, facts)
    values = {"bandwidth": disk.bytes_per_s, "efficiency": disk.efficiency, "latency": disk.latency_s}
    values |= {"capacity": disk.capacity_bytes, "power": disk.power_watts, "idle_share": disk.idle_share}
    values |= {"queue_depth": float(disk.queue_depth), "read_block": float(disk.block_bytes)}
    values["cpu_rate"] = disk.cpu_bytes_per_s
    if disk.lost_share:
        values["lost_to_cpu"] = disk.lost_share
    written["disk"] = section("disk", disk.name, disk.title, values, facts)
    return written


def section(kind: str, name: str, title: str, values: Mapping[str, Value], facts: Mapping[str, Fact]) -> dict[str, Any]:
    """One profile of `kind`. A value that no longer is what its fact says (a what-if) is marked as given."""
    sources: dict[tuple[str, str], str] = {}
    written = {}
    for key, rule in FACTS[kind].items():
        value = values.get(key)
        if value is None or value == math.inf:
            continue  # no such fact, or a rate at which there is nothing to wait for
        shown, fact = write(value, rule), facts.get(f"{kind}.{key}")
        source = (fact.kind, fact.source) if fact else ("unstated", "")
        if fact and text(shown) != fact.value:
            if _reads_as(fact.value, key, kind, value):
                shown = fact.value  # as it was written, "1008 GB/s" rather than "1.008 TB/s"
            else:
                source = ("given", f"changed from {fact.value}")
        label = sources.setdefault(source, f"{source[0]}{len(sources) + 1}")
        written[key] = [shown, label]
    return {
        "schema": f"specsim.{kind}/1",
        "name": name,
        "title": title,
        "sources": {label: _source(*source) for source, label in sources.items()},
        "facts": written,
    }


def _source(kind: str, words: str) -> dict[str, str]:
    if kind == "unstated":
        return {"kind": kind}
    return {"kind": kind, "why" if kind in ("assumed", "given") else "document": words}


def _processor(processor: Processor, bandwidth: str) -> dict[str, Value]:
    """What was measured in place of `attention_efficiency` or `overhead` stands in their place."""
    values: dict[str, Value] = {
        **processor.flops_per_s,
        bandwidth: processor.bytes_per_s,
        "gemm_efficiency": processor.gemm_efficiency,
        "bandwidth_efficiency": processor.bandwidth_efficiency,
    }
    if processor.task_s:
        values["task_overhead"] = processor.task_s
    values |= {f"in_run_{kind}": seconds for kind, seconds in processor.in_run_s.items()}
    if processor.draft_efficiency != 1:
        values["draft_efficiency"] = processor.draft_efficiency
    values |= {f"gemm_efficiency_{of}": curve for of, curve in processor.gemm_efficiencies.items()}
    values |= {f"overhead_{op}": seconds for op, seconds in processor.overheads_s.items()}
    values |= {f"activations_{op}": rate for op, rate in processor.activation_bytes_per_s.items()}
    if not processor.overheads_s:
        values["overhead"] = processor.overhead_s
    attention = processor.attention
    if attention is None:
        values["attention_efficiency"] = processor.attention_efficiency
    else:
        values |= {
            "attention_sequence": attention.sequence_s,
            "attention_flops": attention.flops_per_s,
            "attention_kv": attention.kv_bytes_per_s,
        }
    return values


def _reserve(facts: Mapping[str, Fact], field: str) -> Value:
    """A Machine keeps budgets only; the reserve that made them is among its facts, if anywhere."""
    kind, key = field.split(".")
    return parse(facts[field].value, FACTS[kind][key], field) if field in facts else 0.0


def _reads_as(words: str, key: str, kind: str, value: Value) -> bool:
    try:
        return parse(words, FACTS[kind][key], key) == value
    except InputError:
        return False
