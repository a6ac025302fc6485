"""`specsim list`: what is known."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import getdoc
from typing import Any, Final

import click

from specsim import machines, profiles
from specsim.cli.options import format_option
from specsim.cli.tables import Cell, emit
from specsim.errors import UnknownNameError
from specsim.model import read_config
from specsim.schedule.lower import STRATEGIES

Row = tuple[Cell, ...]


def _gpu(name: str) -> Row:
    gpu = profiles.gpu(name)
    p = gpu.processor
    return (
        name,
        gpu.title,
        gpu.vram_bytes / 2**30,
        p.bytes_per_s / 1e9,
        p.flops_per_s["bf16"] / 1e12,
        gpu.power_watts,
        gpu.link,
        gpu.host,
    )


def _host(name: str) -> Row:
    host = profiles.host(name)
    p = host.processor
    rate = p.flops_per_s["bf16"] / 1e12
    ram, watts = host.ram_bytes / 2**30, host.power_watts
    return name, host.title, host.cores, ram, p.bytes_per_s / 1e9, rate, watts, host.link, host.disk


def _link(name: str) -> Row:
    link = profiles.link(name)
    return name, link.title, link.bytes_per_s / 1e9, link.rate(pinned=True) / 1e9, link.rate(pinned=False) / 1e9


def _disk(name: str) -> Row:
    disk = profiles.disk(name)
    return name, disk.title, disk.bytes_per_s / 1e9, disk.capacity_bytes / 1e12, disk.power_watts


def _machine(name: str) -> Row:
    m = machines.assemble(machine=name)
    return name, m.gpu.name if m.gpu else None, m.host.name, m.link.name if m.link else None, m.disk.name


def _model(name: str) -> Row:
    model = read_config(profiles.find("model", name))
    experts = f"{model.ffn.top_k} of {model.ffn.experts}" if model.ffn.is_moe else None
    parameters, active = model.parameters / 1e9, model.active_parameters / 1e9
    return (
        name,
        model.family,
        parameters,
        active,
        model.weight_bytes / 1e9,
        model.layers,
        model.hidden,
        experts,
        model.vocab,
    )


def _workload(name: str) -> Row:
    w = profiles.workload(name)
    return name, w.title, w.prompt_tokens_mean, w.prompt_tokens_max, w.output_tokens, w.requests


def _pair(name: str) -> Row:
    p = profiles.pair(name)
    return name, p.target, p.draft, p.text, p.acceptance.at(0), p.acceptance.kind


def _strategy(name: str) -> Row:
    words = (getdoc(import_module(STRATEGIES[name].__module__)) or "").partition("\n\n")[0]
    return name, " ".join(words.split())


#: what can be listed: columns, and a row by name
TABLES: Final[dict[str, tuple[tuple[str, ...], Callable[[str], Row]]]] = {
    "gpus": (("name", "title", "VRAM GiB", "GB/s", "bf16 TFLOP/s", "W", "link", "default host"), _gpu),
    "hosts": (("name", "title", "cores", "RAM GiB", "DRAM GB/s", "bf16 TFLOP/s", "W", "link", "disk"), _host),
    "links": (("name", "title", "raw GB/s", "pinned GB/s", "pageable GB/s"), _link),
    "disks": (("name", "title", "GB/s", "TB", "W"), _disk),
    "machines": (("name", "gpu", "host", "link", "disk"), _machine),
    "models": (
        ("name", "family", "parameters 1e9", "active 1e9", "weights GB", "layers", "hidden", "experts", "vocabulary"),
        _model,
    ),
    "workloads": (("name", "title", "prompt mean", "prompt max", "output", "requests"), _workload),
    "pairs": (("name", "target", "draft", "text", "first acceptance", "source"), _pair),
    "strategies": (("name", "what it does"), _strategy),
}


class Kind(click.Choice[str]):
    """What to list: a choice, with near matches for one that there is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            raise UnknownNameError("kind", value, self.choices, where="list")
        return str(value)


@click.command("list")
@click.argument("what", type=Kind(list(TABLES)), metavar="[" + "|".join(TABLES) + "]")
@format_option("table", "json", "csv")
def listing(what: str, fmt: str) -> None:
    """List the GPUs, hosts, links, disks, machines, models, workloads, pairs or strategies that are known."""
    headers, row = TABLES[what]
    names = (
        list(STRATEGIES) if what == "strategies" else profiles.names({v: k for k, v in profiles.KINDS.items()}[what])
    )
    emit(headers, [row(name) for name in names], fmt)
