"""Quantities with units, read from text and written back exactly.

Inside specsim every quantity is a plain float in base units: bytes, bytes/s, FLOP/s, seconds, watts.
Units appear only at the edges, in profiles, options, plan files and printed tables.
"""

from __future__ import annotations

import math
import re
from typing import Final

from specsim.errors import UnitError

KiB: Final = 2**10
MiB: Final = 2**20
GiB: Final = 2**30
TiB: Final = 2**40

_DECIMAL = {"": 1e0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": float(KiB), "Mi": float(MiB), "Gi": float(GiB), "Ti": float(TiB)}
_BYTES = {f"{p}B": f for p, f in (_DECIMAL | _BINARY).items()}

#: dimension -> unit -> factor to the base unit
UNITS: Final[dict[str, dict[str, float]]] = {
    "bytes": _BYTES,
    "bytes/s": {f"{unit}/s": factor for unit, factor in _BYTES.items()},
    "FLOP/s": {f"{p}FLOP/s": f for p, f in _DECIMAL.items()} | {f"{p}FLOPS": f for p, f in _DECIMAL.items()},
    "seconds": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "watts": {"W": 1.0, "kW": 1e3},
    "ratio": {"": 1.0, "%": 1e-2},
}

#: the units that a value is written in, largest first
_WRITTEN: Final[dict[str, tuple[str, ...]]] = {
    "bytes": ("TiB", "GiB", "MiB", "KiB", "B"),
    "bytes/s": ("TB/s", "GB/s", "MB/s", "kB/s", "B/s"),
    "FLOP/s": ("PFLOP/s", "TFLOP/s", "GFLOP/s", "FLOP/s"),
    "seconds": ("s", "ms", "us", "ns"),
    "watts": ("W",),
    "ratio": ("",),
}

# possessive, as what matches in many ways takes quadratic time to fail
_QUANTITY = re.compile(r"\s*+([+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?)\s*+([A-Za-z%/]*+)\s*+")


def parse(text: str | float, dimension: str, *, where: str | None = None, zero: bool = False) -> float:
    """Return `text` such as "24 GiB" in base units of `dimension` (a key of `UNITS`).

    Raises UnitError for a missing or foreign unit, a value that is not finite, a negative one,
    and, unless `zero` is set, zero. A bare number is accepted for ratios only.
    """
    units = UNITS[dimension]
    known = ", ".join(u for u in units if u)
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise UnitError(f"{text!r} is not a quantity", where=where, hint=f"write a number and a unit: {known}")
    number, unit = float(match[1]), match[2]
    if unit not in units:
        problem = f"has no unit of {dimension}" if not unit else f"has unit {unit!r}, which is not one of {dimension}"
        raise UnitError(f"{str(text)!r} {problem}", where=where, hint=f"use one of: {known}")
    value = _times(number, units[unit])
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise UnitError(f"{str(text)!r} must be {'zero or more' if zero else 'more than zero'}", where=where)
    return value


def _times(number: float, factor: float) -> float:
    """Rounded once, so that 20 us is the float 20e-6: 1e-6 itself is no float, but 1e6 is."""
    return number * factor if factor >= 1 else number / round(1 / factor)


def exact(value: float, dimension: str) -> str:
    """Write `value` so that `parse` gives back the very same float."""
    for unit in _WRITTEN[dimension]:
        scaled = value / UNITS[dimension][unit]
        text = f"{scaled:.10g}"
        large = abs(scaled) >= 1 or unit == _WRITTEN[dimension][-1]
        if large and _times(float(text), UNITS[dimension][unit]) == value:
            return f"{text} {unit}".strip()
    base = next(unit for unit in _WRITTEN[dimension] if UNITS[dimension][unit] == 1)
    return f"{value!r} {base}".strip()


def show(value: float, dimension: str, digits: int = 3) -> str:
    """Write `value` for a person: in the largest unit of which there is one, `digits` significant digits."""
    units = _WRITTEN[dimension]
    unit = next((u for u in units if abs(value) >= UNITS[dimension][u]), units[-1])
    scaled = value / UNITS[dimension][unit]
    places = max(0, digits - 1 - (math.floor(math.log10(abs(scaled))) if scaled else 0))
    return f"{scaled:.{min(places, digits)}f} {unit}".strip()
