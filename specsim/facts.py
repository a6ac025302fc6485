"""One fact: the rule that it is written by, from text to a value in base units, and back exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from specsim import units
from specsim.errors import InputError
from specsim.hardware import Curve

#: a fact that a profile has to state, and one that it may leave out without a default taking its place
REQUIRED: Final = "required"
OPTIONAL: Final = "optional"

#: what a fact comes out as: a number in base units, a curve by rows, probabilities by position, or a name
Value: TypeAlias = float | Curve | tuple[float, ...] | str


@dataclass(frozen=True, slots=True)
class Rule:
    """How one fact is written. `dimension`: one of `units.UNITS`, number, count, curve, hazards, name. Where the fact
    `instead` is stated, this one is not needed and has no default."""

    dimension: str
    default: str | float = REQUIRED
    why: str = ""
    zero: bool = False
    instead: str = ""

    @property
    def assumed(self) -> bool:
        """Whether a profile that leaves the fact out gets the default, announced as an assumption."""
        return self.default not in (REQUIRED, OPTIONAL)


def parse(written: Any, rule: Rule, where: str) -> Value:
    """The value of a fact in base units. Raises InputError (UnitError for quantities) naming `where`."""
    if rule.dimension == "curve":
        points = written if isinstance(written, Mapping) else {1: written}
        curve = [(_number(x, where), _share(y, where)) for x, y in points.items()]
        rows = [x for x, _ in curve]
        if not rows or rows[0] < 1 or rows != sorted(set(rows)):
            hint = "write {rows: share, ...}, rows rising from 1"
            raise InputError(f"{written!r} is not a curve", where=where, hint=hint)
        return Curve(tuple(curve))
    if rule.dimension == "hazards":
        if not isinstance(written, list) or not written:
            raise InputError(f"{written!r} is not a list of shares", where=where, hint="write [0.8, 0.75]")
        return tuple(_share(p, where, zero=True) for p in written)
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise InputError(f"{written!r} is not one value", where=where)
    if rule.dimension == "name":
        return str(written)
    if rule.dimension == "ratio":
        return _share(written, where, zero=rule.zero)
    if rule.dimension in ("number", "count"):
        number = _number(written, where)
        if rule.dimension == "count" and number != int(number):
            raise InputError(f"{written!r} is not a whole number", where=where)
        return number
    return units.parse(written, rule.dimension, where=where, zero=rule.zero)


def _number(written: Any, where: str) -> float:
    try:
        number = float(written)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(written, bool) or not math.isfinite(number) or number <= 0:
        raise InputError(f"{written!r} is not a number above zero", where=where)
    return number


def _share(written: Any, where: str, *, zero: bool = False) -> float:
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise InputError(f"{written!r} is not a share", where=where, hint="write 0.7 or 70 %")
    share = units.parse(written, "ratio", where=where, zero=zero)
    if share > 1:
        raise InputError(f"{written!r} is more than 1", where=where, hint="a share lies between 0 and 1")
    return share


def write(value: Value, rule: Rule) -> Any:
    """`value` as a profile states it: text with unit, number or mapping. `parse` gives it back exactly."""
    if isinstance(value, Curve):
        flat = len(value.points) == 1 and value.points[0][0] == 1
        return value.points[0][1] if flat else {_short(rows): share for rows, share in value.points}
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str):
        return value
    if rule.dimension in ("ratio", "number", "count"):
        return _short(value)
    return units.exact(value, rule.dimension)


def text(written: Any) -> str:
    """A fact's value as written, on one line."""
    if isinstance(written, Mapping):
        return ", ".join(f"{rows}: {share}" for rows, share in written.items())
    return ", ".join(map(str, written)) if isinstance(written, list) else str(written)


def _short(number: float) -> float | int:
    return int(number) if number == int(number) else number
