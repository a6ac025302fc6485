"""Timelines: what ran when, predicted or measured, as numbers and as a trace file."""

from specsim.cost.timing import resource
from specsim.timeline.timeline import (
    STREAMS,
    Span,
    Timeline,
    busy_seconds,
    critical_path,
    streams,
    utilisation,
    waiting_on,
)
from specsim.timeline.trace import read_trace, to_trace, write_trace

__all__ = [
    "STREAMS",
    "Span",
    "Timeline",
    "busy_seconds",
    "critical_path",
    "read_trace",
    "resource",
    "streams",
    "to_trace",
    "utilisation",
    "waiting_on",
    "write_trace",
]
