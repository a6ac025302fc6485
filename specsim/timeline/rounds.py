"""Rounds of a timeline, found by the names of their tasks: predicted and measured alike."""

from __future__ import annotations

from specsim.errors import InputError
from specsim.schedule.graph import parse
from specsim.timeline.timeline import Timeline


def round_ends(timeline: Timeline) -> dict[int, float]:
    """When each round's last verify pass ends, by number; a round in which nothing ran is left out."""
    ends: dict[int, float] = {}
    for span in timeline.spans:
        name = parse(span.name)
        if name.phase == "verify" and name.site == "head" and span.seconds > 0:
            ends[name.round] = max(ends.get(name.round, span.end), span.end)
    return ends


def cut_rounds(timeline: Timeline, first: int, count: int) -> Timeline:
    """From the end of the round before `first` to the end of the last of `count` rounds, on a clock from zero.

    Raises InputError where these rounds are not all there.
    """
    ends = round_ends(timeline)
    before, last = first - 1, first + count - 1
    if before not in ends or last not in ends:
        raise InputError(f"rounds {first} to {last} are not in the timeline", where="timeline")
    return timeline.window(ends[before], ends[last]).from_zero()


def middle_rounds(timeline: Timeline, count: int) -> tuple[int, int]:
    """The first of up to `count` neighbouring rounds in mid-job that have one before them, and how many there are.

    Raises InputError for a timeline with fewer than two rounds.
    """
    ends = round_ends(timeline)
    inner = [number for number in sorted(ends) if number - 1 in ends]
    if not inner:
        raise InputError("there are no two rounds in a row", where="timeline")
    first = inner[max(0, (len(inner) - count) // 2)]
    run = 0
    while run < count and first + run in inner:
        run += 1
    return first, run
