"""Joules of a job from the busy time of its parts, and what they and the hardware cost per million tokens.

A part draws its busy power while it works and a share of that else. What a part draws does not depend on how hard it
works while it is busy, so a GPU that reads memory counts as much as one that multiplies: joules are on the high side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from specsim.devices import bare
from specsim.errors import InputError
from specsim.hardware import Machine
from specsim.units import GiB

JOULES_PER_KWH: Final = 3.6e6
SECONDS_PER_YEAR: Final = 365.25 * 86400
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class Energy:
    """What a job of `tokens` useful tokens in `seconds` takes from the wall: mean watts by part (gpu, cpu, dram, disk,
    rest, and what the power supply loses)."""

    watts: Mapping[str, float]
    seconds: float
    tokens: int

    @property
    def joules(self) -> float:
        return sum(self.watts.values()) * self.seconds

    @property
    def joules_per_token(self) -> float:
        return self.joules / self.tokens


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices in one currency: of a kWh (None: energy costs nothing that is known), and the years of steady work over
    which bought hardware is written off. Raises InputError for a price below zero or a life that is not above it."""

    per_kwh: float | None = None
    life_years: float = 3.0

    def __post_init__(self) -> None:
        if self.per_kwh is not None and not 0 <= self.per_kwh < float("inf"):
            raise InputError(f"the price of a kWh is {self.per_kwh}", where="--electricity", hint="give zero or more")
        if not 0 < self.life_years < float("inf"):
            raise InputError(f"the life of hardware is {self.life_years} years", where="--life", hint="give years")


def energy_of(machine: Machine, busy_s: Mapping[str, float], seconds: float, tokens: int) -> Energy:
    """The energy of a job on `machine`, whose parts gpu, cpu, dram and disk are busy for `busy_s` of `seconds`. Like
    devices draw alike, and every node's host, disk and rest draw, whether a plan uses them or not."""
    host, disk, gpu = machine.host, machine.disk, machine.gpu
    dram = host.dram_watts_per_gib * host.ram_bytes / GiB
    parts = {"gpu": (gpu.power_watts, gpu.idle_share)} if gpu is not None else {}
    parts |= {"cpu": (host.power_watts, host.idle_share), "dram": (dram, host.dram_idle_share)}
    parts |= {"disk": (disk.power_watts, disk.idle_share)}
    nodes = machine.devices // machine.node_devices
    watts = {"rest": host.rest_watts * nodes}
    for part, (power, idle_share) in parts.items():
        number = machine.devices if part == machine.main else nodes
        working = sum(busy for name, busy in busy_s.items() if bare(name) == part)
        busy = min(float(number), working / seconds)
        watts[part] = power * (busy + (number - busy) * idle_share)
    watts["supply"] = sum(watts.values()) * (1 / host.supply_efficiency - 1)
    return Energy(watts, seconds, tokens)


def cost_per_million(energy: Energy, tariff: Tariff, hardware: float = 0.0) -> float | None:
    """What a million useful tokens cost at steady work: electricity, and `hardware` (its price) written off over its
    life. None where neither is known."""
    if tariff.per_kwh is None and not hardware:
        return None
    electricity = energy.joules_per_token / JOULES_PER_KWH * (tariff.per_kwh or 0.0)
    tokens_in_life = energy.tokens / energy.seconds * tariff.life_years * SECONDS_PER_YEAR
    return MILLION * (electricity + hardware / tokens_in_life)
