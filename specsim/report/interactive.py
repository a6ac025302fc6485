"""Timelines as elements of a page that `assets/timeline.js` draws: zoomed, moved and asked about by a reader."""

from __future__ import annotations

from typing import Any, Final

from specsim.report.gantt import kind_colours, row_name
from specsim.report.markup import Html, tag
from specsim.timeline import Timeline, critical_path, streams

#: tasks of one timeline that a page carries, some 50 bytes each
MOST: Final = 8000
#: black is the colour of ink, and ink is white by night
_INK: Final = {"#000000": "var(--ink)"}
HINT: Final = (
    "Drag to move; Ctrl and the wheel, or a double click, to zoom; point at a task to see what it is. "
    "Keys: arrows, + and -, 0 for all of it."
)


def timeline_data(timeline: Timeline) -> dict[str, Any]:
    """What the script draws: columns of equal length, one entry per task that takes time, on a clock from zero.

    Of a timeline of more than `MOST` tasks the first ones, by their start.
    """
    timeline = timeline.from_zero()
    rows = {stream: row for row, stream in enumerate(streams(timeline))}
    drawn = [i for i, span in enumerate(timeline.spans) if span.seconds > 0]
    kinds = {kind: n for n, kind in enumerate(kind_colours(timeline.spans[i] for i in drawn))}
    critical = set(critical_path(timeline)) if timeline.preds else set()
    kept = sorted(drawn, key=lambda i: timeline.spans[i].start)[:MOST]
    spans = [timeline.spans[i] for i in kept]
    return {
        "rows": [row_name(stream) for stream in rows],
        "kinds": list(kinds),
        "end": max((_short(span.end) for span in spans), default=0.0),
        "name": [span.name for span in spans],
        "row": [rows[span.stream] for span in spans],
        "kind": [kinds[span.kind] for span in spans],
        "start": [_short(span.start) for span in spans],
        "seconds": [_short(span.seconds) for span in spans],
        "bytes": [_short(span.bytes) for span in spans],
        "flops": [_short(span.flops) for span in spans],
        "critical": [n for n, i in enumerate(kept) if i in critical],
    }


def timeline_element(index: int, title: str, timeline: Timeline) -> Html:
    """The place where the script draws the timeline at `index` of the page's data, with its buttons and its legend."""
    spans = [span for span in timeline.spans if span.seconds > 0]
    shown = [
        tag("li", tag("span", class_="swatch", style=f"background:{_INK.get(colour, colour)}"), kind)
        for kind, colour in kind_colours(spans).items()
    ]
    if timeline.preds:
        shown.append(tag("li", tag("span", class_="swatch critical"), "critical path"))
    cut = [tag("p", f"The first {MOST} of {len(spans)} tasks.", class_="hint")] if len(spans) > MOST else []
    buttons = [
        tag("button", words, type="button", data_do=do, title=what)
        for do, words, what in (("in", "+", "zoom in"), ("out", "\N{MINUS SIGN}", "zoom out"), ("all", "all", "all"))
    ]
    bar = tag("div", tag("h3", title), tag("output"), *buttons, class_="tools")
    canvas = tag("canvas", tabindex="0", role="img", aria_label=f"{title}: {len(spans)} tasks by stream and time")
    legend = tag("ul", *shown, class_="legend")
    return tag("div", bar, canvas, legend, *cut, class_="timeline", data_index=str(index))


def _short(value: float) -> float:
    """Seven digits: a microsecond in ten seconds, and few bytes in the page."""
    return float(f"{value:.7g}")
