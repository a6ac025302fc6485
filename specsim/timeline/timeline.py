"""What ran when: spans on streams, predicted or measured, and what can be read from them.

The simulator and the executor both produce this type, and their spans carry the same names: that is the
contract which lets a prediction be laid over a measurement task by task.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from specsim.cost.timing import resource
from specsim.devices import bare, device_of
from specsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

#: the order of rows and tracks; other streams follow in order of appearance
STREAMS: Final = (
    *("gpu", "gpu.draft", "gpu.head", "h2d", "h2d.kv", "h2d.act", "d2h"),
    *("cpu", "cpu.draft", "cpu.head", "disk", "peer"),
)

_RELATIVE = 1e-9  # two times nearer than this share of the makespan are the same


@dataclass(frozen=True, slots=True)
class Span:
    """One task on its stream, `start` to `end` in seconds, with the work it did."""

    name: str
    stream: str
    kind: str
    start: float
    end: float
    flops: float = 0.0
    bytes: float = 0.0

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Timeline:
    """Spans, and for each the indices of the spans it depended on.

    `preds` has one entry per span, or none at all where dependencies are not known. The clock may start
    anywhere. Raises InputError where `preds` does not fit `spans`.
    """

    spans: tuple[Span, ...]
    preds: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.spans)
        if self.preds and len(self.preds) != count:
            raise InputError(f"{count} spans with the dependencies of {len(self.preds)}", where="timeline")
        for i, before in enumerate(self.preds):
            if before and not 0 <= min(before) <= max(before) < count:
                raise InputError(f"span {i} depends on {list(before)} of {count} spans", where="timeline")

    @property
    def start(self) -> float:
        return min((span.start for span in self.spans), default=0.0)

    @property
    def end(self) -> float:
        return max((span.end for span in self.spans), default=0.0)

    @property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return self.end - self.start

    def window(self, start: float, end: float) -> Timeline:
        """The part from `start` to `end`, on the same clock.

        Spans are cut at the edges and keep their share of the work; dependencies on spans outside are
        dropped. A span of no length at an edge is inside.
        """
        kept = [
            i
            for i, span in enumerate(self.spans)
            if max(span.start, start) < min(span.end, end) or start <= span.start == span.end <= end
        ]
        place = {old: new for new, old in enumerate(kept)}
        preds = tuple(tuple(place[p] for p in self.preds[i] if p in place) for i in kept) if self.preds else ()
        return Timeline(tuple(_cut(self.spans[i], start, end) for i in kept), preds)

    def from_zero(self) -> Timeline:
        """The same spans on a clock that starts with the first of them."""
        zero = self.start
        moved = (replace(span, start=span.start - zero, end=span.end - zero) for span in self.spans)
        return Timeline(tuple(moved), self.preds)

    def to_frame(self) -> pd.DataFrame:
        """One row per span: name, stream, kind, start_s, end_s, flops, bytes."""
        import pandas as pd  # here, as it takes longer to load than most commands take to run

        columns = {"start": "start_s", "end": "end_s"}
        fields = ("name", "stream", "kind", "start", "end", "flops", "bytes")
        return pd.DataFrame({columns.get(f, f): [getattr(span, f) for span in self.spans] for f in fields})


def streams(timeline: Timeline) -> list[str]:
    """The streams that have spans, in the order in which they are drawn: device by device."""
    seen = dict.fromkeys(span.stream for span in timeline.spans)
    order = {stream: place for place, stream in enumerate(STREAMS)}
    return sorted(seen, key=lambda stream: (device_of(stream), order.get(bare(stream), len(order))))


def busy_seconds(timeline: Timeline) -> dict[str, float]:
    """Seconds in which at least one stream of each resource runs a span."""
    spans: dict[str, list[tuple[float, float]]] = {resource(stream): [] for stream in streams(timeline)}
    for span in timeline.spans:
        spans[resource(span.stream)].append((span.start, span.end))
    return {name: _covered(intervals) for name, intervals in spans.items()}


def utilisation(timeline: Timeline) -> dict[str, float]:
    """Busy share (0..1) of the makespan, by resource; 0 where nothing takes time."""
    makespan = timeline.makespan
    return {name: busy / makespan if makespan else 0.0 for name, busy in busy_seconds(timeline).items()}


def critical_path(timeline: Timeline) -> list[int]:
    """Indices of the spans, first to last, that the makespan waits for.

    From the span that ends last, go back to the predecessor that ended last, among its dependencies and the
    span before it on its stream, until there is none. In a simulated timeline each span of the path starts
    exactly when the one before it ends; in a measured one the gaps are launch and wake-up times. Of spans
    that end together the one of highest index is taken.
    """
    spans = timeline.spans
    if not spans:
        return []
    in_time = sorted(range(len(spans)), key=lambda i: (spans[i].start, spans[i].end, i))
    rank = [0] * len(spans)
    before: list[int | None] = [None] * len(spans)
    latest: dict[str, int] = {}
    for place, i in enumerate(in_time):
        rank[i] = place
        before[i] = latest.get(spans[i].stream)
        latest[spans[i].stream] = i
    slack = _RELATIVE * timeline.makespan
    here: int | None = max(range(len(spans)), key=lambda i: (spans[i].end, i))
    path = []
    while here is not None:
        path.append(here)
        known = [*(timeline.preds[here] if timeline.preds else ()), before[here]]
        # The rank keeps the walk going back even through spans of no length.
        reached = [p for p in known if p is not None and rank[p] < rank[here]]
        ready = [p for p in reached if spans[p].end <= spans[here].start + slack]
        here = max(ready, key=lambda p: (spans[p].end, p), default=None)
    return path[::-1]


def waiting_on(timeline: Timeline) -> dict[str, float]:
    """Share (0..1) of the makespan that the critical path spends on each stream.

    The shares add up to 1, less the gaps of a measured timeline.
    """
    shares = dict.fromkeys(streams(timeline), 0.0)
    makespan = timeline.makespan
    for i in critical_path(timeline) if makespan else ():
        shares[timeline.spans[i].stream] += timeline.spans[i].seconds / makespan
    return shares


def _cut(span: Span, start: float, end: float) -> Span:
    if start <= span.start and span.end <= end:
        return span
    left, right = max(span.start, start), min(span.end, end)
    share = (right - left) / span.seconds
    return replace(span, start=left, end=right, flops=span.flops * share, bytes=span.bytes * share)


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total
