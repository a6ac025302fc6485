"""The fitted parameters as a file, profiles/published/fitted.yaml: written by a fit, read by every prediction."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec
import yaml

from specsim import profiles
from specsim.errors import InputError
from specsim.published.cells import cells
from specsim.published.fit import Fit
from specsim.published.parameters import parameters
from specsim.yamlfile import read_yaml

SCHEMA: Final = "specsim.fitted/1"
#: significant digits that are kept: far finer than anything is known
DIGITS: Final = 6


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One parameter; `deviation` is that of its logarithm."""

    value: float
    deviation: float
    prior: float
    meaning: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: str
    source: dict[str, str]
    parameters: dict[str, Fitted]
    left_out: dict[str, float]


def path() -> Path:
    return profiles.root() / "published" / "fitted.yaml"


@lru_cache(maxsize=1)
def stored() -> Fit:
    """The calibration that is shipped. Raises InputError for a file that is not one."""
    file = path()
    try:
        read = msgspec.convert(read_yaml(file), _File)
    except msgspec.ValidationError as error:
        raise InputError(str(error), where=str(file), hint="make it anew: specsim published --fit") from None
    if read.schema != SCHEMA:
        raise InputError(f"schema is {read.schema!r}", where=str(file), hint=f"this version reads {SCHEMA}")
    values = {name: p.value for name, p in read.parameters.items()}
    deviations = {name: p.deviation for name, p in read.parameters.items()}
    return Fit(values, deviations, read.left_out)


def write(fit: Fit, to: Path) -> None:
    """Write a calibration so that `stored` reads it back, to `DIGITS` digits."""
    known = {p.name: p for p in parameters(cells())}
    content = {
        "schema": SCHEMA,
        "source": {
            "kind": "fitted",
            "document": "published_throughput.csv, 32 output tokens (SpecOffload, arXiv 2505.10259)",
            "tool": "specsim published --fit",
        },
        "parameters": {
            name: {
                "value": _short(value),
                "deviation": _short(fit.deviations[name]),
                "prior": _short(known[name].prior),
                "meaning": known[name].meaning,
            }
            for name, value in sorted(fit.values.items())
        },
        "left_out": {name: _short(value) for name, value in fit.left_out.items()},
    }
    to.write_text(yaml.safe_dump(content, sort_keys=False, width=118), encoding="utf-8")


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
