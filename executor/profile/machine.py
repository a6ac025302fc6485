"""What was measured, written as a machine profile (specsim.machine/1) with all of its parts inline."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from executor.profile.analysis import Measured
from specsim import __version__
from specsim.facts import Value, write
from specsim.here.system import System
from specsim.schema import FACTS
from specsim.units import GiB

#: What a part names for use outside this machine: its host's link, its card's host. Nothing here depends on it, as
#: this machine's own link and disk stand beside them.
_ELSEWHERE: Final = {
    "gpu": {"link": "pcie4x16", "host": "desktop-ddr5-64g"},
    "host": {"link": "pcie4x16", "disk": "nvme-gen4"},
    "link": {},
    "disk": {},
}
_POWER: Final = {"gpu": 300.0, "host": 100.0, "disk": 6.0}  # watts
_NO_POWER: Final = "power was not measured; a usual figure, on which no prediction of speed depends"
#: what the system and other programs keep of the RAM, at least
_RESERVED_SHARE: Final = 1 / 8


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU's name, VRAM and measured facts, with those of the link to it."""

    title: str
    vram_bytes: int
    facts: Mapping[str, Measured]
    link: Mapping[str, Measured]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was found out. `noise` says what disturbed the measurements of a part, by the part's name."""

    system: System
    threads: int
    host: Mapping[str, Measured]
    disk: Mapping[str, Measured]
    disk_bytes: int
    disk_path: str
    device: Device | None
    noise: Mapping[str, str]


def to_profile(facts: Facts, today: datetime.date) -> dict[str, Any]:
    """The profile as plain values, in the order of the file. `machines.from_dict` makes a Machine of it."""
    tool = f"specsim {__version__}, torch {torch.__version__}, {facts.threads} threads"
    pen, noise = _Pen(today.isoformat(), tool), facts.noise
    system, device = facts.system, facts.device
    host = _Section("host", system.name, f"{system.cpu}, {system.ram_bytes / GiB:.0f} GiB")
    for key, value in {"cores": system.cores, "sockets": system.sockets, "ram": system.ram_bytes}.items():
        host.add(key, float(value), {"kind": "measured", "document": "what the operating system lets this process use"})
    reserve = max(system.ram_bytes * _RESERVED_SHARE, float(system.ram_bytes - system.available_bytes))
    host.add("ram_reserve", reserve, _assumed("an eighth of the RAM, or what was in use when this was measured"))
    pen.measured(host, facts.host, noise.get("host"))
    disk = _Section("disk", f"{system.name}-disk", f"the disk under {facts.disk_path}")
    disk.add("capacity", float(facts.disk_bytes), {"kind": "measured", "document": "the file system's size"})
    pen.measured(disk, facts.disk, noise.get("disk"))
    parts = [host, disk]
    if device is not None:
        gpu = _Section("gpu", f"{system.name}-gpu", device.title)
        gpu.add("vram", float(device.vram_bytes), {"kind": "measured", "document": "what the driver says"})
        pen.measured(gpu, device.facts, noise.get("gpu"))
        link = _Section("link", f"{system.name}-link", f"the way to {device.title}")
        pen.measured(link, device.link, noise.get("link"))
        parts = [gpu, host, link, disk]
    for part in parts:
        if part.kind in _POWER:
            part.add("power", _POWER[part.kind], _assumed(_NO_POWER))
    title = f"{system.cpu}{f', {device.title}' if device else ''}, measured {today.isoformat()}"
    whole = {"schema": "specsim.machine/1", "name": system.name, "title": title, "gpu": "none"}
    return whole | {part.kind: part.written() for part in parts}


def warnings(facts: Facts) -> list[str]:
    """What makes the measurements doubtful, a line each."""
    parts = {"disk": facts.disk, "host": facts.host}
    if facts.device is not None:
        parts |= {"gpu": facts.device.facts, "link": facts.device.link}
    lines = [f"{noise} while the {part} was measured" for part, noise in facts.noise.items()]
    for part, measured in parts.items():
        lines += [
            f"noisy: {part}.{key} has a spread of {fact.spread:.0%}" for key, fact in measured.items() if fact.noisy
        ]
    return lines


class _Section:
    """One part of the profile while it is written. Facts that share a source share its key."""

    def __init__(self, kind: str, name: str, title: str) -> None:
        self.kind, self.name, self.title = kind, name, title
        self.sources: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, list[Any]] = {}

    def add(self, key: str, value: Value, source: dict[str, Any]) -> None:
        label = next((label for label, known in self.sources.items() if known == source), key)
        self.sources[label] = source
        self.facts[key] = [write(value, FACTS[self.kind][key]), label]

    def written(self) -> dict[str, Any]:
        names = {"schema": f"specsim.{self.kind}/1", "name": self.name, "title": self.title}
        return names | {"sources": self.sources, "facts": self.facts} | _ELSEWHERE[self.kind]


@dataclass(frozen=True, slots=True)
class _Pen:
    """What every measured source of this profile says."""

    date: str
    tool: str

    def measured(self, section: _Section, facts: Mapping[str, Measured], noise: str | None) -> None:
        for key, fact in facts.items():
            why = f"{fact.how}; {noise}" if noise else fact.how
            source = {"kind": "measured", "date": self.date, "tool": self.tool, "n": fact.n}
            section.add(key, fact.value, source | {"spread": f"{fact.spread:.1%}", "why": why})


def _assumed(why: str) -> dict[str, str]:
    return {"kind": "assumed", "why": why}
