"""What all ranks did, as that of one: a timeline on the streams of the graph, bytes moved, the fullest memories. The
ranks of one machine have one clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from executor.ranks.messages import Share
from executor.ranks.part import IN, OUT
from specsim.devices import on
from specsim.timeline.timeline import Span, Timeline


def timeline(shares: Sequence[Share]) -> Timeline:
    """A send begins where its rows leave, and ends where they have arrived."""
    if len(shares) == 1:
        return Timeline(shares[0].spans, shares[0].preds)
    arrived = {span.name: span.end for share in shares for span in share.spans if span.stream == IN}
    spans: list[Span] = []
    sends: dict[str, int] = {}
    places: list[dict[int, int]] = []  # of each rank: its number of a span -> the number here
    for rank, share in enumerate(shares):
        place: dict[int, int] = {}
        for number, span in enumerate(share.spans):
            if span.stream == IN:
                continue
            place[number] = len(spans)
            if span.stream == OUT:
                sends[span.name] = len(spans)
                span = replace(span, end=max(span.end, arrived.get(span.name, span.end)))
            spans.append(replace(span, stream=_stream(span.stream, rank)))
        places.append(place)
    for share, place in zip(shares, places, strict=True):
        place |= {i: sends[s.name] for i, s in enumerate(share.spans) if s.stream == IN and s.name in sends}
    preds = [
        tuple(place[before] for before in share.preds[number] if before in place)
        for share, place in zip(shares, places, strict=True)
        for number, span in enumerate(share.spans)
        if span.stream != IN
    ]
    return Timeline(tuple(spans), tuple(preds))


def moved(shares: Sequence[Share]) -> dict[str, int]:
    """Bytes by stream. What was sent is counted where it left."""
    return {
        _stream(stream, rank): count
        for rank, share in enumerate(shares)
        for stream, count in share.moved.items()
        if stream != IN
    }


def fullest(shares: Sequence[Share]) -> Mapping[str, int]:
    """The most that any rank held of each memory: each has its own."""
    return {memory: max(share.peak_bytes[memory] for share in shares) for memory in shares[0].peak_bytes}


def _stream(stream: str, rank: int) -> str:
    return on("peer" if stream == OUT else stream, rank)
