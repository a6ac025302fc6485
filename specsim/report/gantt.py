"""A timeline as a picture: a row per stream, a colour per kind of work, how busy each row is.

matplotlib takes long to load, so nothing imports this module at start-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from specsim.devices import bare, device_of
from specsim.report.style import DPI, GRID, INK, LANE, PLAIN, QUIET, heading, legend, new_figure, save
from specsim.timeline.timeline import Span, Timeline, busy_seconds, critical_path, streams
from specsim.units import show

__all__ = ["COLOURS", "gantt", "kind_colours", "panels", "row_name", "save"]

ROWS: Final = {
    "gpu": "GPU",
    "gpu.draft": "GPU draft",
    "h2d": "PCIe in",
    "h2d.kv": "PCIe in, KV",
    "h2d.act": "PCIe in, rows",
    "d2h": "PCIe out",
    "gpu.head": "GPU logits",
    "cpu": "CPU",
    "cpu.draft": "CPU draft",
    "cpu.head": "CPU logits",
    "disk": "Disk",
    "peer": "Peer out",
}

#: Okabe and Ito, Color Universal Design (2008): told apart with common colour blindness too. Grey is ours.
COLOURS: Final = {
    "embed": "#999999",
    "attention": "#E69F00",
    "ffn": "#009E73",
    "head": "#000000",
    "draft": "#CC79A7",
    "load": "#0072B2",
    "kv": "#56B4E9",
    "transfer": "#F0E442",
    "read": "#D55E00",
    "send": "#332288",
    "reduce": "#882255",
}
_SPARE = (
    "#117733",
    "#AA4499",
    "#44AA99",
    "#DDCC77",
)  # Tol, muted: for kinds not known here

_WIDTH = 12.0  # inches: 1600 dots
_LEFT, _RIGHT = 1.15, 0.75  # inches beside the rows
_TOP, _BOTTOM = 0.95, 1.0  # inches above and below
_NAME = 0.2  # inches for the name of the first of several timelines
_ROW = 0.425  # inches; six rows make 600 dots
_BAR = 0.74  # height of a bar where a row is 1
_PLOT = _WIDTH - _LEFT - _RIGHT  # inches that the makespan takes


def gantt(timeline: Timeline, *, title: str, subtitle: str = "") -> Figure:
    """The picture of a timeline: 1600 dots wide, 600 high with six streams.

    Spans of no length are not drawn. Where dependencies are known, the critical path is underlined.
    """
    return panels({"": timeline}, title=title, subtitle=subtitle)


def panels(timelines: Mapping[str, Timeline], *, title: str, subtitle: str = "") -> Figure:
    """Timelines by name, one below the other on the same scale and in the same colours, each from its own start."""
    counts = [max(len(streams(timeline)), 2) for timeline in timelines.values()]
    top = _TOP + (_NAME if len(timelines) > 1 else 0.0)
    height = top + sum(_ROW * count + _BOTTOM for count in counts)
    figure = new_figure(_WIDTH, height)
    longest = max(timeline.makespan for timeline in timelines.values())
    every = [span for timeline in timelines.values() for span in timeline.spans if span.seconds > 0]
    colours = kind_colours(every)
    for (name, timeline), count in zip(timelines.items(), counts, strict=True):
        low = height - top - _ROW * count
        axes = figure.add_axes((_LEFT / _WIDTH, low / height, _PLOT / _WIDTH, _ROW * count / height))
        _panel(axes, timeline, longest, colours)
        if name:
            axes.text(0, 1.02, name, transform=axes.transAxes, va="bottom", size=11, weight="bold", color=INK, **PLAIN)
        top += _ROW * count + _BOTTOM
    handles: list[Artist] = [Patch(color=colour, label=kind) for kind, colour in colours.items()]
    if any(timeline.preds for timeline in timelines.values()):
        handles.append(Line2D([], [], color=INK, linewidth=2, label="critical path"))
    heading(figure, title, subtitle, left=_LEFT)
    legend(figure, handles, left=_LEFT)
    return figure


def row_name(stream: str) -> str:
    """What a stream is called beside its row: on device 0 as on a machine with one device."""
    device = device_of(stream)
    return ROWS.get(bare(stream), bare(stream)) + (f" @{device}" if device else "")


def _panel(axes: Axes, timeline: Timeline, longest: float, colours: dict[str, str]) -> None:
    """One timeline on axes that are `longest` seconds wide."""
    rows = {stream: row for row, stream in enumerate(streams(timeline))}
    scale, unit = _time_unit(longest)
    origin = timeline.start
    spans = [replace(span, start=span.start - origin, end=span.end - origin) for span in timeline.spans]
    shown = [span for span in spans if span.seconds > 0]
    _frame(axes, rows, timeline, longest, scale, unit)
    for kind, colour in colours.items():
        if of_kind := [span for span in shown if span.kind == kind]:
            _bars(axes, of_kind, rows, longest, scale, colour)
    _names(axes, shown, rows, longest, scale, colours)
    if timeline.preds:
        _underline(axes, [spans[i] for i in critical_path(timeline)], rows, scale)


def _time_unit(makespan: float) -> tuple[float, str]:
    """Units per second, and the unit's name, for an axis that reads well."""
    if makespan >= 2.0:
        return 1.0, "s"
    return (1e3, "ms") if makespan >= 2e-3 else (1e6, "us")


def kind_colours(spans: Iterable[Span]) -> dict[str, str]:
    """Colour by kind: the known ones in the palette's order, then the others in order of appearance."""
    seen = dict.fromkeys(span.kind for span in spans)
    strange = [kind for kind in seen if kind not in COLOURS]
    spare = {kind: _SPARE[n % len(_SPARE)] for n, kind in enumerate(strange)}
    return {kind: colour for kind, colour in COLOURS.items() if kind in seen} | spare


def _frame(axes: Axes, rows: dict[str, int], timeline: Timeline, longest: float, scale: float, unit: str) -> None:
    """The empty rows: their names on the left, how busy they are on the right, time below."""
    makespan = timeline.makespan
    axes.set_xlim(0, longest * scale or 1.0)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)  # the first stream on top
    axes.barh(list(rows.values()), makespan * scale, height=_BAR, color=LANE, zorder=0)
    axes.set_yticks(list(rows.values()), [row_name(stream) for stream in rows])
    beside = axes.get_yaxis_transform()
    for stream, row in rows.items():
        own = Timeline(tuple(span for span in timeline.spans if span.stream == stream))
        share = sum(busy_seconds(own).values()) / makespan if makespan else 0.0
        axes.text(1.012, row, f"{share:.0%}", transform=beside, va="center", size=11, color=INK)
    axes.text(1.012, 1.02, "busy", transform=axes.transAxes, va="bottom", size=9.5, color=QUIET)
    since = f" from t = {show(timeline.start, 'seconds')}" if timeline.start else ""
    axes.set_xlabel(f"time ({unit}){since}", size=10.5, color=QUIET, loc="left")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=10.5)
    axes.tick_params(axis="y", labelsize=11)
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=GRID, linewidth=0.6)


def _bars(axes: Axes, spans: list[Span], rows: dict[str, int], longest: float, scale: float, colour: str) -> None:
    """The bars of one kind, as one collection that carries the kind as its label."""
    corners = []
    for span in spans:
        left, right, low = span.start * scale, span.end * scale, rows[span.stream] - _BAR / 2
        corners.append([(left, low), (left, low + _BAR), (right, low + _BAR), (right, low)])
    dots = _PLOT * DPI / longest  # per second
    # A white rim parts bars that touch, where they can spare it. Not snapped, a bar thinner than a dot
    # tints that dot instead of vanishing.
    rims = [0.5 if span.seconds * dots > 6 else 0.0 for span in spans]
    bars = PolyCollection(corners, facecolors=colour, edgecolors="white", linewidths=rims, zorder=2)
    bars.set_label(spans[0].kind)
    bars.set_snap(False)
    axes.add_collection(bars)


def _names(
    axes: Axes,
    spans: list[Span],
    rows: dict[str, int],
    longest: float,
    scale: float,
    colours: dict[str, str],
) -> None:
    """Write each span's name into its bar where it fits."""
    for span in spans:
        if span.seconds / longest * _PLOT > 0.085 * len(span.name) + 0.08:  # inches, at this size
            red, green, blue = to_rgb(colours[span.kind])
            colour = INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "white"
            middle = (span.start + span.end) / 2 * scale
            axes.text(middle, rows[span.stream], span.name, ha="center", va="center", size=8.5, color=colour, **PLAIN)


def _underline(axes: Axes, spans: list[Span], rows: dict[str, int], scale: float) -> None:
    lows = [rows[span.stream] + _BAR / 2 + 0.06 for span in spans]
    starts, ends = [span.start * scale for span in spans], [span.end * scale for span in spans]
    axes.hlines(lows, starts, ends, color=INK, linewidth=2, zorder=3, label="critical path")
