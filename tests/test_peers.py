"""The arithmetic of benchmarks/limited.py: ties, verify passes, settings, control groups."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.disk import Rates, overlap, rates, reads, union
from benchmarks.peers.group import Root, find_root
from benchmarks.peers.parity import Reference, compare
from benchmarks.peers.prompts import read_ids
from benchmarks.peers.report import Row, cells, table
from benchmarks.peers.tuning import Setting, Trial, best, by_speed

SMALL, LARGE = Setting("eager", 100), Setting("eager", 200)


def reference(*margins: float) -> Reference:
    """One request with tokens 0, 1, ...; a margin of up to 0.5 is a tie."""
    return Reference([list(range(len(margins)))], [margins], noise=0.25)


def test_equal_outputs_need_no_explanation() -> None:
    parity = compare(reference(1.0, 1.0), [[0, 1]])
    assert (parity.identical, parity.requests, parity.margins, parity.explained) == (1.0, 1, (), True)


def test_only_the_first_difference_of_an_output_counts() -> None:
    parity = compare(reference(2.0, 0.25, 2.0, 2.0), [[0, 9, 9, 9]])
    assert (parity.identical, parity.requests, parity.margins) == (0.25, 0, (0.25,))
    assert parity.explained
    assert parity.ties == 0.25


def test_a_difference_where_the_reference_was_sure_is_not_a_tie() -> None:
    assert compare(reference(0.5), [[7]]).explained
    assert not compare(reference(0.625), [[7]]).explained


def test_outputs_of_another_length_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare(reference(1.0, 1.0), [[0]])


def span(name: str, kind: str, start: float, end: float, size: int = 0) -> dict[str, Any]:
    return {"ph": "X", "pid": 2, "name": name, "cat": kind, "ts": start * 1e6, "dur": (end - start) * 1e6,
            "args": {"bytes": size}}  # fmt: skip


def trace(*spans: dict[str, Any]) -> dict[str, Any]:
    predicted = {"ph": "X", "pid": 1, "name": "verify.0/A/L00/load_ffn.0", "cat": "read", "ts": 0.0, "dur": 1e6}
    names = [
        {"ph": "M", "pid": i, "name": "process_name", "args": {"name": n}}
        for i, n in ((1, "predicted"), (2, "measured"))
    ]
    return {"traceEvents": [*names, predicted | {"args": {"bytes": 1}}, *spans]}


def test_a_read_during_drafting_counts_for_the_rounds_and_not_for_the_passes() -> None:
    found = trace(
        span("verify.0/A/embed/lookup", "embed", 10, 11),
        span("verify.0/A/L00/load_ffn.0", "read", 10, 12, 200),
        span("verify.0/A/head/logits", "head", 13, 14),
        span("verify.1/A/L00/load_ffn.0", "read", 13, 15, 100),  # half of it while nothing is verified
        span("verify.1/A/embed/lookup", "embed", 16, 18),
    )
    assert rates(found) == Rates(250 / 6, 300 / 8)


def test_reads_are_in_order_and_those_that_fetched_nothing_are_left_out() -> None:
    found = trace(
        span("verify.1/A/L00/load_ffn.0", "read", 3, 4, 5),
        span("verify.0/A/L01/load_ffn.0", "read", 2, 2, 0),
        span("verify.0/A/L00/load_ffn.0", "read", 1, 2, 7),
        span("prefill.0/A/L00/load_ffn.0", "read", 0, 1, 9),
    )
    assert [(read.start, read.bytes) for read in reads(found)] == [(1, 7), (3, 5)]


def test_a_trace_without_verify_passes_has_no_rate() -> None:
    with pytest.raises(ValueError, match="no verify pass"):
        rates(trace(span("prefill.0/A/L00/ffn.0", "ffn", 0, 1)))


def test_passes_that_overlap_are_one_time() -> None:
    assert union([(4, 5), (0, 2), (1, 3)]) == [(0, 3), (4, 5)]
    assert overlap((2, 6), [(0, 3), (4, 5)]) == 2


def test_a_smaller_batch_pays_for_every_group() -> None:
    small, large = Trial(SMALL, 4, 2.0, 1.0), Trial(SMALL, 16, 5.0, 2.0)
    assert small.seconds(16, 32) == 4 * 33
    assert large.seconds(16, 32) == 67
    assert best([small, large], 16, 32) == large
    assert best([small, large], 8, 32) == small
    assert best([small, large], 1, 32) is None


def test_what_was_killed_is_never_the_best() -> None:
    killed, slow = Trial(LARGE, 4, None, None), Trial(SMALL, 4, 9.0, 9.0)
    assert killed.seconds(4, 32) == math.inf
    assert best([killed, slow], 4, 32) == slow
    assert by_speed([killed, slow], 4, 32) == [SMALL]


VERSION_1 = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
OTHER_1 = "31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu"
VERSION_2 = "32 25 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"


@pytest.mark.parametrize(
    ("mounts", "root"),
    [
        ([OTHER_1, VERSION_2, VERSION_1], Root(1, Path("/sys/fs/cgroup/memory"))),
        ([OTHER_1, VERSION_2], Root(2, Path("/sys/fs/cgroup/unified"))),
        ([OTHER_1], None),
    ],
)
def test_the_memory_controller_is_found(mounts: list[str], root: Root | None) -> None:
    assert find_root("\n".join(mounts)) == root


def test_prompts_are_of_one_length(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"input_ids": [1, 2]}\n{"input_ids": [3, 4]}\n{"input_ids": [5]}\n')
    assert read_ids(file, 2) == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="differ in length"):
        read_ids(file, 3)
    with pytest.raises(ValueError, match="has 3 prompts, and 4"):
        read_ids(file, 4)


def test_a_row_has_the_median_and_how_often_ours_is_faster() -> None:
    ours = Row("ours", 16, 16, tokens_per_s=[30.0, 20.0, 25.0], killed=[False] * 3)
    peer = Row("assisted", 16, 2, tokens_per_s=[5.0], killed=[False, True], note="one by one")
    assert cells(ours, ours)[1:6] == ("16", "25.00", "20.00 - 30.00", "1.00", "-")
    assert cells(peer, ours)[1:6] == ("2 of 16", "5.00", "5.00 - 5.00", "5.00", "-")
    assert cells(peer, ours)[9] == "1/2"
    assert table([ours, peer]).endswith("assisted, 16: one by one")


def test_a_row_that_was_always_killed_says_so() -> None:
    row = Row("accelerate", 16, 16, killed=[True])
    assert cells(row, None)[1:6] == ("16", "-", "-", "-", "-")
