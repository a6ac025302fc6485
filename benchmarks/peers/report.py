"""What a competitor measured over the repetitions, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HEADERS = (
    "competitor", "requests", "tokens/s", "min - max", "ours/it", "predicted", "load s", "read GB", "peak MiB",
    "killed", "same tokens", "disk",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A competitor at a number of requests, of which `served` were run. `killed` is by repetition; the other lists
    have those that were not killed: useful tokens per second, seconds of loading, bytes read from storage after it, the
    group's peak, the share of tokens before the first difference from transformers' own, and of ours the disk's rate in
    verify passes and over all rounds, by that of the same reads alone."""

    name: str
    requests: int
    served: int
    predicted: float | None = None
    tokens_per_s: list[float] = field(default_factory=list)
    load_s: list[float] = field(default_factory=list)
    read_bytes: list[int] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    identical: list[float] = field(default_factory=list)
    disk_verify: list[float] = field(default_factory=list)
    disk_decode: list[float] = field(default_factory=list)
    killed: list[bool] = field(default_factory=list)
    note: str = ""


def cells(row: Row, ours: Row | None) -> tuple[str, ...]:
    """The row's text, in the order of `HEADERS`."""
    speed, rival = _median(row.tokens_per_s), _median(ours.tokens_per_s) if ours else None
    spread = f"{min(row.tokens_per_s):.2f} - {max(row.tokens_per_s):.2f}" if row.tokens_per_s else "-"
    served = f"{row.requests}" if row.served == row.requests else f"{row.served} of {row.requests}"
    disk = " / ".join(_text(_median(values), ".2f") for values in (row.disk_verify, row.disk_decode))
    return (
        row.name,
        served,
        _text(speed, ".2f"),
        spread,
        _text(rival / speed if rival and speed else None, ".2f"),
        _text(row.predicted, ".2f"),
        _text(_median(row.load_s), ".1f"),
        _text(_median(row.read_bytes), ".1f", 1e-9),
        _text(max(row.peak_bytes, default=None), ".0f", 2.0**-20),
        f"{sum(row.killed)}/{len(row.killed)}",
        _text(_median(row.identical), ".1%"),
        disk if row.disk_verify else "-",
    )


def table(rows: Sequence[Row]) -> str:
    """All rows; ratios are to the row named "ours" of the same number of requests."""
    ours = {row.requests: row for row in rows if row.name == "ours"}
    lines = [HEADERS, *(cells(row, ours.get(row.requests)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([*text, *(f"{row.name}, {row.requests}: {row.note}" for row in rows if row.note)])


def as_json(row: Row) -> dict[str, Any]:
    """The row with its median."""
    return {**asdict(row), "median_tokens_per_s": _median(row.tokens_per_s)}


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _text(value: float | None, form: str, factor: float = 1.0) -> str:
    return "-" if value is None else format(value * factor, form)
