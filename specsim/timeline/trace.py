"""Timelines as a trace file for Perfetto or chrome://tracing: a process per timeline, a track per stream.

The format is the JSON of Google's "Trace Event Format": metadata events ("M") name and order the tracks,
complete events ("X") are the spans, `ts` and `dur` in microseconds. Times are rounded to whole nanoseconds,
start and end each on its own, so that spans that touch still do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from specsim.errors import InputError
from specsim.timeline.timeline import Span, Timeline, streams
from specsim.wholefile import replace_whole

_TRACKS = 1000  # thread ids of one process; ids differ between processes too, as some viewers merge equal ones


def to_trace(timelines: Mapping[str, Timeline]) -> dict[str, Any]:
    """The trace of timelines by name, such as "predicted" and "measured", ready for a JSON encoder."""
    events: list[dict[str, Any]] = []
    for pid, (name, timeline) in enumerate(timelines.items(), start=1):
        events += _label("process", name, pid, pid * _TRACKS, pid)
        tracks = {stream: pid * _TRACKS + n for n, stream in enumerate(streams(timeline), start=1)}
        for stream, tid in tracks.items():
            events += _label("thread", stream, pid, tid, tid)
        for i, span in enumerate(timeline.spans):
            after = timeline.preds[i] if timeline.preds else ()
            events.append(_event(span, after, pid, tracks[span.stream]))
    return {"displayTimeUnit": "ms", "traceEvents": events}


def write_trace(path: str | os.PathLike[str], timelines: Mapping[str, Timeline]) -> None:
    """Write the trace at once or not at all. Raises InputError where `path` cannot be written."""
    try:
        replace_whole(Path(path), msgspec.json.encode(to_trace(timelines)))
    except OSError as error:
        raise InputError(f"cannot write the trace: {error.strerror}", where=str(path)) from None


def read_trace(path: str | os.PathLike[str]) -> dict[str, Timeline]:
    """The timelines that `write_trace` wrote, to the nanosecond. Raises InputError for any other file."""
    hint = "give a trace that specsim wrote"
    try:
        trace = msgspec.json.decode(Path(path).read_bytes(), type=_Trace)
    except OSError as error:
        raise InputError(f"cannot read the trace: {error.strerror}", where=str(path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"is not a trace: {error}", where=str(path), hint=hint) from None
    labels = {(e.name, e.pid, e.tid): e.args.name for e in trace.traceEvents if e.ph == "M"}
    names = {pid: name for (what, pid, _), name in labels.items() if what == "process_name"}
    spans: dict[int, list[Span]] = {pid: [] for pid in names}
    preds: dict[int, list[tuple[int, ...]]] = {pid: [] for pid in names}
    for event in trace.traceEvents:
        if event.ph == "X":
            stream = labels.get(("thread_name", event.pid, event.tid))
            if stream is None or event.pid not in names:
                what = f"event {event.name!r} is on a track without a name"
                raise InputError(what, where=str(path), hint=hint)
            spans[event.pid].append(_span(event, stream))
            preds[event.pid].append(event.args.after)
    try:
        return {
            name: Timeline(tuple(spans[pid]), tuple(preds[pid]) if any(preds[pid]) else ())
            for pid, name in names.items()
        }
    except InputError as error:
        raise InputError(f"is not a trace: {error.what}", where=str(path), hint=hint) from None


class _Args(msgspec.Struct):
    name: str = ""  # of a process or a thread
    kind: str = ""
    flops: float = 0.0
    bytes: float = 0.0
    after: tuple[int, ...] = ()


class _Event(msgspec.Struct):
    name: str
    ph: str
    pid: int
    tid: int
    args: _Args
    ts: float = 0.0
    dur: float = 0.0


class _Trace(msgspec.Struct):
    traceEvents: list[_Event]  # noqa: N815  the format's name


def _label(what: str, name: str, pid: int, tid: int, order: int) -> list[dict[str, Any]]:
    at = {"ph": "M", "pid": pid, "tid": tid}
    return [
        {"name": f"{what}_name", **at, "args": {"name": name}},
        {"name": f"{what}_sort_index", **at, "args": {"sort_index": order}},
    ]


def _event(span: Span, after: tuple[int, ...], pid: int, tid: int) -> dict[str, Any]:
    start, end = round(span.start * 1e9), round(span.end * 1e9)
    args: dict[str, Any] = {"kind": span.kind, "flops": span.flops, "bytes": span.bytes}
    if span.bytes > 0 and end > start:
        args["GB/s"] = float(f"{span.bytes / (end - start):.4g}")  # bytes per nanosecond
    if after:
        args["after"] = after
    times = {"ts": start / 1e3, "dur": (end - start) / 1e3}
    return {"name": span.name, "cat": span.kind, "ph": "X", "pid": pid, "tid": tid, **times, "args": args}


def _span(event: _Event, stream: str) -> Span:
    start = round(event.ts * 1e3)
    end = start + round(event.dur * 1e3)
    args = event.args
    return Span(event.name, stream, args.kind, start / 1e9, end / 1e9, args.flops, args.bytes)
