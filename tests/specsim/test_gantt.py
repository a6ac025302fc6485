"""The picture holds what the timeline holds: bars, rows, colours, legend, shares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from specsim.errors import InputError
from specsim.report.gantt import COLOURS, gantt, save
from specsim.timeline import Span, Timeline

SLOT = Timeline(
    (
        Span("load 0", "h2d", "load", 1.0, 3.0),
        Span("load 1", "h2d", "load", 3.0, 5.0),
        Span("ffn 0", "gpu", "ffn", 3.0, 4.0),
        Span("ffn 1", "gpu", "ffn", 5.0, 6.0),
        Span("draft", "gpu.draft", "draft", 1.0, 5.0),
        Span("barrier", "gpu", "sync", 6.0, 6.0),
    ),
    ((), (), (0,), (1, 2), (), (3,)),
)


def bars(figure: Figure) -> dict[str, list[tuple[float, float, int]]]:
    """(left, right, row) of the bars of each kind, as drawn."""
    found = {}
    for collection in figure.axes[0].collections:
        if isinstance(collection, PolyCollection):
            boxes = [path.get_extents() for path in collection.get_paths()]
            found[str(collection.get_label())] = [(b.x0, b.x1, round((b.y0 + b.y1) / 2)) for b in boxes]
    return found


def test_every_span_that_takes_time_has_its_bar() -> None:
    assert bars(gantt(SLOT, title="One slot")) == {
        "ffn": [(2.0, 3.0, 0), (4.0, 5.0, 0)],
        "draft": [(0.0, 4.0, 1)],
        "load": [(0.0, 2.0, 2), (2.0, 4.0, 2)],
    }


def test_rows_are_named_and_say_how_busy_they_are() -> None:
    axes = gantt(SLOT, title="One slot").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["GPU", "GPU draft", "PCIe in"]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:4] == ["40%", "80%", "80%", "busy"]
    assert sorted(texts[4:]) == ["draft", "ffn 0", "ffn 1", "load 0", "load 1"]  # all fit into their bars
    assert axes.get_xlabel() == "time (s) from t = 1.00 s"


def test_the_legend_lists_the_kinds_that_are_there_and_the_critical_path() -> None:
    figure = gantt(SLOT, title="One slot", subtitle="predicted")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "ffn",
        "draft",
        "load",
        "critical path",
    ]
    assert [text.get_text() for text in figure.texts] == ["One slot", "predicted"]
    underlined = [c for c in figure.axes[0].collections if c.get_label() == "critical path"]
    assert [len(c.get_paths()) for c in underlined] == [4]  # load 0, load 1, ffn 1 and the barrier
    measured = gantt(Timeline(SLOT.spans), title="Measured")
    assert [text.get_text() for text in measured.legends[0].get_texts()] == ["ffn", "draft", "load"]


def test_kinds_have_different_colours_unknown_ones_too() -> None:
    kinds = [*COLOURS, "sync", "sample"]
    figure = gantt(Timeline(tuple(Span(k, "gpu", k, i, i + 1) for i, k in enumerate(kinds))), title="All")
    collections = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    assert [c.get_label() for c in collections] == kinds
    assert len({str(c.get_facecolor()) for c in collections}) == len(kinds)


@pytest.mark.parametrize(("seconds", "label"), [(90.0, "time (s)"), (0.5, "time (ms)"), (1e-4, "time (us)")])
def test_the_axis_has_the_unit_that_reads_well(seconds: float, label: str) -> None:
    axes = gantt(Timeline((Span("x", "gpu", "ffn", 0.0, seconds),)), title="x").axes[0]
    assert axes.get_xlabel() == label


def test_a_picture_of_six_streams_is_1600_by_600(tmp_path: Path) -> None:
    names = ("gpu", "gpu.draft", "h2d", "d2h", "cpu", "disk")
    figure = gantt(Timeline(tuple(Span(s, s, "ffn", 0.0, 1.0) for s in names)), title="Six")
    save(figure, tmp_path / "six.png")
    header = (tmp_path / "six.png").read_bytes()[:24]
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (1600, 600)


def test_an_empty_timeline_is_an_empty_picture(tmp_path: Path) -> None:
    figure = gantt(Timeline(()), title="Nothing")
    save(figure, tmp_path / "nothing.svg")
    assert bars(figure) == {}


def test_a_picture_that_cannot_be_saved(tmp_path: Path) -> None:
    figure = gantt(SLOT, title="One slot")
    with pytest.raises(InputError, match="cannot write the picture: No such file or directory"):
        save(figure, tmp_path / "missing" / "slot.png")
    with pytest.raises(InputError, match=r"end the name in \.png, \.svg or \.pdf"):
        save(figure, tmp_path / "slot.docx")


def test_drawing_needs_no_pyplot() -> None:
    code = "import sys, specsim.report.gantt; print('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
