"""What a timeline says of itself, and that a trace file brings it back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from specsim.errors import InputError
from specsim.timeline import (
    Span,
    Timeline,
    busy_seconds,
    critical_path,
    read_trace,
    resource,
    streams,
    to_trace,
    utilisation,
    waiting_on,
    write_trace,
)

# load 0   |==|
# load 1      |==|
# layer 0     |===|           waits for load 0
# draft       |======|        on the GPU too
# layer 1          |===|      waits for load 1 and layer 0
# head                 ||     of no length
SLOT = Timeline(
    (
        Span("load 0", "h2d", "load", 0.0, 2.0, bytes=8e9),
        Span("load 1", "h2d", "load", 2.0, 4.0, bytes=8e9),
        Span("layer 0", "gpu", "ffn", 2.0, 5.0, flops=3e12),
        Span("draft", "gpu.draft", "draft", 2.0, 8.0),
        Span("layer 1", "gpu", "ffn", 5.0, 8.0, flops=3e12),
        Span("head", "gpu", "head", 8.0, 8.0),
    ),
    ((), (), (0,), (), (1, 2), (4,)),
)


def test_a_stream_belongs_to_the_resource_before_its_dot() -> None:
    assert [resource(s) for s in ("gpu", "gpu.draft", "h2d")] == ["gpu", "gpu", "h2d"]


def test_streams_come_in_drawing_order() -> None:
    spans = [Span("x", stream, "k", 0, 1) for stream in ("nvlink", "disk", "h2d", "gpu.draft", "gpu")]
    assert streams(Timeline(tuple(spans))) == ["gpu", "gpu.draft", "h2d", "disk", "nvlink"]


def test_streams_are_drawn_device_by_device() -> None:
    spans = [Span("x", stream, "ffn", 0.0, 1.0) for stream in ("gpu@2", "peer", "h2d@2", "gpu", "gpu@10")]
    assert streams(Timeline(tuple(spans))) == ["gpu", "peer", "gpu@2", "h2d@2", "gpu@10"]


def test_two_streams_of_one_resource_are_busy_once() -> None:
    assert busy_seconds(SLOT) == {"gpu": 6.0, "h2d": 4.0}
    assert utilisation(SLOT) == {"gpu": 0.75, "h2d": 0.5}


def test_the_critical_path_goes_back_through_whoever_ended_last() -> None:
    names = [SLOT.spans[i].name for i in critical_path(SLOT)]
    assert names == ["load 0", "layer 0", "layer 1", "head"]
    assert waiting_on(SLOT) == {"gpu": 0.75, "gpu.draft": 0.0, "h2d": 0.25}


def test_a_measured_path_crosses_gaps_that_it_does_not_count() -> None:
    spans = (Span("a", "gpu", "ffn", 10.0, 11.0), Span("b", "gpu", "ffn", 12.0, 14.0))
    assert critical_path(Timeline(spans)) == [0, 1]
    assert waiting_on(Timeline(spans)) == {"gpu": 0.75}
    assert Timeline(spans).makespan == 4.0


def test_a_critical_path_ends_even_where_spans_have_no_length() -> None:
    spans = tuple(Span(name, "gpu", "k", 1.0, 1.0) for name in "abc")
    assert critical_path(Timeline(spans, ((2,), (0,), (1,)))) == [0, 1, 2]


def test_nothing_happened() -> None:
    empty = Timeline(())
    assert (empty.makespan, critical_path(empty), utilisation(empty), waiting_on(empty)) == (0.0, [], {}, {})
    assert utilisation(Timeline((Span("x", "gpu", "k", 1, 1),))) == {"gpu": 0.0}


def test_a_window_cuts_spans_with_their_work_and_drops_the_rest() -> None:
    assert SLOT.window(3.0, 5.0) == Timeline(
        (
            Span("load 1", "h2d", "load", 3.0, 4.0, bytes=4e9),
            Span("layer 0", "gpu", "ffn", 3.0, 5.0, flops=2e12),
            Span("draft", "gpu.draft", "draft", 3.0, 5.0),
        ),
        ((), (), ()),
    )
    tail = SLOT.window(5.0, 8.0)
    assert [span.name for span in tail.spans] == ["draft", "layer 1", "head"]
    assert tail.preds == ((), (), (1,))
    assert SLOT.window(0.0, 8.0) == SLOT


def test_the_frame_has_one_row_per_span() -> None:
    frame = SLOT.to_frame()
    assert list(frame.columns) == ["name", "stream", "kind", "start_s", "end_s", "flops", "bytes"]
    assert frame.iloc[2].tolist() == ["layer 0", "gpu", "ffn", 2.0, 5.0, 3e12, 0.0]


def test_a_timeline_loads_neither_pandas_nor_matplotlib() -> None:
    code = "import sys, specsim.timeline; print({'pandas', 'numpy', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize("preds", [((),), ((), (2,)), ((), (-1,))])
def test_dependencies_must_fit_the_spans(preds: tuple[tuple[int, ...], ...]) -> None:
    spans = (Span("a", "gpu", "k", 0, 1), Span("b", "gpu", "k", 1, 2))
    with pytest.raises(InputError, match=r"^timeline: "):
        Timeline(spans, preds)


def test_a_trace_has_a_process_per_timeline_and_a_track_per_stream() -> None:
    timeline = Timeline((Span("load 3", "h2d", "load", 0.5, 2.5, bytes=24e9), Span("ffn", "gpu", "ffn", 2.5, 3.0)))
    assert to_trace({"predicted": timeline}) == {
        "displayTimeUnit": "ms",
        "traceEvents": [
            {"name": "process_name", "ph": "M", "pid": 1, "tid": 1000, "args": {"name": "predicted"}},
            {"name": "process_sort_index", "ph": "M", "pid": 1, "tid": 1000, "args": {"sort_index": 1}},
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1001, "args": {"name": "gpu"}},
            {"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": 1001, "args": {"sort_index": 1001}},
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1002, "args": {"name": "h2d"}},
            {"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": 1002, "args": {"sort_index": 1002}},
            {
                "name": "load 3",
                "cat": "load",
                "ph": "X",
                "pid": 1,
                "tid": 1002,
                "ts": 500_000.0,
                "dur": 2_000_000.0,
                "args": {"kind": "load", "flops": 0.0, "bytes": 24e9, "GB/s": 12.0},
            },
            {
                "name": "ffn",
                "cat": "ffn",
                "ph": "X",
                "pid": 1,
                "tid": 1001,
                "ts": 2_500_000.0,
                "dur": 500_000.0,
                "args": {"kind": "ffn", "flops": 0.0, "bytes": 0.0},
            },
        ],
    }


def test_a_trace_comes_back_to_the_nanosecond(tmp_path: Path) -> None:
    edge = 12345.678901234
    long = Timeline((Span("a", "gpu", "ffn", 0.0, edge), Span("b", "gpu", "ffn", edge, edge + 1e-9)))
    path = tmp_path / "trace.json"
    write_trace(path, {"predicted": SLOT, "measured": long})
    assert list(tmp_path.iterdir()) == [path]
    back = read_trace(path)
    assert list(back) == ["predicted", "measured"]
    assert back["predicted"] == SLOT  # whole seconds: exact, with dependencies
    a, b = back["measured"].spans
    assert back["measured"].preds == ()
    assert a.end == b.start == pytest.approx(edge, abs=1e-9)
    assert b.end - b.start == pytest.approx(1e-9, rel=1e-2)


def test_a_trace_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(InputError, match="cannot write the trace: Is a directory") as caught:
        write_trace(path, {"predicted": SLOT})
    assert str(caught.value).startswith(str(path))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot write the trace: No such file or directory"):
        write_trace(tmp_path / "missing" / "trace.json", {"predicted": SLOT})


def test_what_is_not_a_trace_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with pytest.raises(InputError, match="cannot read the trace: No such file or directory"):
        read_trace(path)
    path.write_text("[1, 2")
    with pytest.raises(InputError, match=r"trace\.json: is not a trace: .*; give a trace that specsim wrote"):
        read_trace(path)
    path.write_text('{"traceEvents": [], "other": ' + "[" * 100_000)
    with pytest.raises(InputError, match=r"trace\.json: is not a trace: .*recursion"):
        read_trace(path)
    event = {"name": "a", "ph": "X", "pid": 1, "tid": 1, "ts": "soon", "dur": 1.0, "args": {}}
    path.write_text(json.dumps({"traceEvents": [event]}))
    with pytest.raises(InputError, match=r"Expected `float`, got `str` - at `\$\.traceEvents\[0\]\.ts`"):
        read_trace(path)
    path.write_text(json.dumps({"traceEvents": [event | {"ts": 0.0}]}))
    with pytest.raises(InputError, match="event 'a' is on a track without a name"):
        read_trace(path)
