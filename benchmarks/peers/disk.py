"""How fast a run's disk delivered while it decoded, from the run's own trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Read:
    """A read of the measured timeline; seconds since the run began."""

    name: str
    start: float
    end: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second while at least one verify pass was under way, and over all rounds, drafting included."""

    verify_bytes_per_s: float
    decode_bytes_per_s: float


def reads(trace: dict[str, Any], phase: str = "verify") -> list[Read]:
    """What the disk read for a phase, in order. Tasks that had nothing to do are left out."""
    found = [
        Read(e["name"], e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6, int(e["args"]["bytes"]))
        for e in _spans(trace)
        if e["cat"] == "read" and e["name"].startswith(f"{phase}.") and e["args"]["bytes"]
    ]
    return sorted(found, key=lambda read: read.start)


def rates(trace: dict[str, Any]) -> Rates:
    """Of the verify passes. A pass lasts from its first computation to its last; a read that is only partly inside one
    counts in proportion. Raises ValueError where the trace has no such pass."""
    passes: dict[str, Interval] = {}
    for e in _spans(trace):
        word, batch = e["name"].split("/")[:2]
        if word.startswith("verify.") and e["cat"] != "read" and e["dur"] > 0:
            start, end = passes.get(f"{word}/{batch}", (float("inf"), 0.0))
            passes[f"{word}/{batch}"] = min(start, e["ts"] / 1e6), max(end, (e["ts"] + e["dur"]) / 1e6)
    if not passes:
        raise ValueError("the trace has no verify pass")
    busy = union(passes.values())
    found = reads(trace)
    inside = sum(r.bytes * overlap((r.start, r.end), busy) / (r.end - r.start) for r in found if r.end > r.start)
    whole = busy[0][0], busy[-1][1]
    during = sum(r.bytes * overlap((r.start, r.end), [whole]) / (r.end - r.start) for r in found if r.end > r.start)
    return Rates(inside / sum(end - start for start, end in busy), during / (whole[1] - whole[0]))


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same time as intervals that do not touch, in order."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def overlap(interval: Interval, busy: Sequence[Interval]) -> float:
    """Seconds of `interval` that lie within `busy`, intervals that do not touch."""
    start, end = interval
    return sum(max(0.0, min(end, b) - max(start, a)) for a, b in busy)


def _spans(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """The measured timeline's spans."""
    events = trace["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    return [e for e in events if e["ph"] == "X" and names[e["pid"]] == "measured"]
