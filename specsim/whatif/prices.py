"""What parts cost: a file of prices with its date and currency. Prices are no facts: they are whoever shops's own."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from specsim.errors import InputError
from specsim.whatif.parts import Part, named
from specsim.yamlfile import read_yaml

SCHEMA: Final = "specsim.prices/1"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: str
    date: datetime.date
    currency: str
    prices: dict[str, float]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by part name, in one currency; `origin` says whose they are and of when. A draft model costs nothing."""

    of: Mapping[str, float] = field(default_factory=dict)
    currency: str = "currency units"
    origin: str = "given"

    def total(self, parts: tuple[Part, ...]) -> float | None:
        """The price of all of them, or None where one is not known."""
        known = [0.0 if part.kind == "draft" else self.of.get(part.name) for part in parts]
        return None if None in known else math.fsum(price for price in known if price is not None)


def read_prices(path: str | Path) -> Prices:
    """A price file (specsim.prices/1). Raises InputError that names the file and what is wrong."""
    raw = read_yaml(path)
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise InputError("is no price file", where=str(path), hint=f"write schema: {SCHEMA}")
    try:
        file = msgspec.convert(raw, _File)
    except msgspec.ValidationError as error:
        raise InputError(str(error).replace("`", ""), where=str(path)) from None
    note = f": {file.note}" if file.note else ""
    found = Prices({}, file.currency, f"{Path(path).name} of {file.date}{note}")
    return with_prices(found, file.prices, str(path))


def with_prices(prices: Prices, more: Mapping[str, float], where: str) -> Prices:
    """Prices with others in their place. Raises InputError for what is no part, or no price."""
    for name, price in more.items():
        if not 0 <= price < math.inf:
            raise InputError(f"the price of {name} is {price:g}", where=where, hint="give zero or more")
    return replace(prices, of={**prices.of, **{named(name, where).name: price for name, price in more.items()}})
