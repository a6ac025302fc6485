"""What a sweep varies: a field of the question, and its values, as written on the command line or given as numbers.

>>> axis("link", "8..64GB/s:4").values
(8000000000.0, 16000000000.0, 32000000000.0, 64000000000.0)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from specsim import units
from specsim.errors import InputError, UnknownNameError
from specsim.units import GiB

Value = float | int | str | bool
#: whose field it is: an option of `api.case`, what `api.plan` fixes, or a factor of `Machine.scaled`
Owner = Literal["option", "fix", "scale"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field that can be varied. `name` is as users write it, `key` as its owner calls it. `kind` is a dimension of
    `units.UNITS`, "whole", "text" or "truth"; numbers that are not `even` are spread by equal factors."""

    name: str
    owner: Owner
    key: str
    kind: str
    even: bool = False

    @property
    def numeric(self) -> bool:
        return self.kind not in ("text", "truth")

    @property
    def names(self) -> bool:
        """Whether its values name parts, models or work, or number devices: another value asks another question."""
        return self.owner == "option" and (self.kind == "text" or self.name == "devices")

    @property
    def column(self) -> str:
        """The name of its column in tables, with the unit of what `shown` gives."""
        return f"{self.name} {_SHOWN[self.kind][0]}" if self.kind in _SHOWN else self.name

    def shown(self, value: Value) -> Value:
        """The value for a table: in GiB or GB/s."""
        return value / _SHOWN[self.kind][1] if self.kind in _SHOWN and not isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Axis:
    """A field and the values that it takes, in base units."""

    field: Field
    values: tuple[Value, ...]


_SHOWN: Final = {"bytes": ("GiB", float(GiB)), "bytes/s": ("GB/s", 1e9)}


def _fields() -> dict[str, Field]:
    texts = ("machine", "gpu", "host", "disk", "target", "draft", "dtype", "workload")
    found = [Field(name, "option", name, "text") for name in texts]
    found += [Field(name, "option", name, "bytes") for name in ("vram", "ram")]
    found += [
        Field("link", "option", "link_bytes_per_s", "bytes/s"),
        Field("disk-bandwidth", "option", "disk_bytes_per_s", "bytes/s"),
        Field("devices", "option", "devices", "whole"),
        Field("peer", "option", "peer", "bytes/s"),
        Field("acceptance", "option", "acceptance", "ratio", even=True),
    ]
    found += [Field(f"{n}-tokens", "option", f"{n}_tokens", "whole") for n in ("prompt", "output")]
    found += [Field("requests", "option", "requests", "whole")]
    for name in ("gpu", "vram_bw", "cpu", "dram"):
        found.append(Field(f"{name.replace('_', '-')}-factor", "scale", name, "ratio"))
    found += [Field(name, "fix", name, "whole", even=True) for name in ("gamma", "ring_slots", "stages", "tensor")]
    found += [
        Field(name, "fix", name, "whole")
        for name in ("batch", "batches", "prefill_batch", "draft_batch", "chunk_tokens")
    ]
    found += [
        Field(name, "fix", name, "text")
        for name in ("strategy", "expert_fetch", "attention", "kv", "ffn", "placement", "draft_kv")
    ]
    return {field.name: field for field in (*found, Field("refill", "fix", "refill", "truth"))}


#: name -> what can be varied
FIELDS: Final = _fields()
#: of a sweep
MOST_POINTS: Final = 1_000_000
_RANGE: Final = re.compile(r"(?P<low>[^.,:]*(?:\.\d[^.,:]*)?)\.\.(?P<high>[^,:]+):(?P<count>\d+)")
_NUMBER: Final = re.compile(r"[\d.]+\s*(?P<unit>[A-Za-z%/]*)")


def field(name: str) -> Field:
    """The field called `name`; `_` and `-` are alike. Raises UnknownNameError with near names."""
    for known in FIELDS.values():
        if known.name.replace("_", "-") == name.replace("_", "-"):
            return known
    raise UnknownNameError("field", name, FIELDS, where="--vary")


def axis(name: str, values: str | Sequence[Value]) -> Axis:
    """The axis of a field. Text is a,b,c or LOW..HIGH:COUNT, where a unit at the end stands for all that have none;
    other values are in base units. One that comes twice counts once. Raises InputError, UnitError, UnknownNameError."""
    of = field(name)
    if not isinstance(values, str):
        given: Sequence[Value] = [_checked(of, value) for value in values]
    elif ".." in values and of.numeric:
        given = _range(of, values)
    else:
        words = [word.strip() for word in values.split(",")]
        given = [_read(of, word, _unit(words[-1])) for word in words]
    if not given:
        raise InputError("has no values", where=f"--vary {name}", hint=f"for example {name}=...,...")
    return Axis(of, tuple(dict.fromkeys(given)))


def _range(of: Field, text: str) -> list[Value]:
    """`count` values from `low` to `high`, both among them: by equal factors, or by equal steps where the field is
    `even` or begins at 0. Whole numbers are rounded."""
    where = f"--vary {of.name}"
    match = _RANGE.fullmatch(text)
    if match is None:
        hint = "write LOW..HIGH:COUNT, for example 8..64GB/s:5"
        raise InputError(f"{text!r} is no range of values", where=where, hint=hint)
    ends = [_read(of, match[end].strip(), _unit(match["high"])) for end in ("low", "high")]
    if any(isinstance(end, str) for end in ends):
        raise InputError(f"{text!r} is no range of numbers", where=where, hint="list pairs: a,b,c")
    low, high = map(float, ends)
    count = int(match["count"])
    if count > MOST_POINTS:
        raise InputError(f"{count} values are too many", where=where, hint=f"a sweep has at most {MOST_POINTS} points")
    if not low < high or count < 2:
        raise InputError(f"{text!r} does not rise in 2 or more steps", where=where, hint="write LOW..HIGH:COUNT")
    spread = np.linspace(low, high, count) if of.even or low == 0 else np.geomspace(low, high, count)
    inner = [float(f"{value:.6g}") for value in spread[1:-1]]  # digits that a person reads back exactly
    values = [low, *inner, high]
    return [round(value) for value in values] if of.kind == "whole" else list(values)


def _read(of: Field, word: str, unit: str) -> Value:
    """One value as written; `unit` is that of the last one."""
    where = f"--vary {of.name}"
    if of.kind == "text":
        return word
    if of.kind == "truth":
        if word not in ("true", "false"):
            raise InputError(f"{word!r} is neither true nor false", where=where)
        return word == "true"
    if of.kind == "whole":
        if not word.isdecimal():
            raise InputError(f"{word!r} is no whole number", where=where)
        return int(word)
    if of.name == "acceptance" and not re.match(r"[\d.]", word):
        return word  # a pair's name
    return units.parse(word if _unit(word) else word + unit, of.kind, where=where, zero=of.name == "acceptance")


def _unit(word: str) -> str:
    """The unit after a number, if there is one."""
    match = _NUMBER.fullmatch(word)
    return match["unit"] if match else ""


def _checked(of: Field, value: Any) -> Value:
    """A value in base units, from Python."""
    kinds: dict[str, tuple[type, ...]] = {"text": (str,), "truth": (bool,), "whole": (int,)}
    able = kinds.get(of.kind, (int, float, str) if of.name == "acceptance" else (int, float))
    good = isinstance(value, able) and (isinstance(value, bool) == (of.kind == "truth"))
    if not good or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{value!r} is no value for it", where=f"vary {of.name}")
    found: Value = value
    return found
