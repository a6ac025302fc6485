"""Names that are taken apart, and rings that say which slot is next."""

from __future__ import annotations

from typing import Any

import pytest

from specsim.schedule.graph import Builder, Ring, TaskName, parse


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("verify.0/A/L07/ffn.3", TaskName("verify", 0, "A", "L07", "ffn", part=3)),
        ("draft.12/B/S02/forward#1", TaskName("draft", 12, "B", "S02", "forward", micro=1)),
        ("prefill.3/A/embed/lookup", TaskName("prefill", 3, "A", "embed", "lookup")),
        ("verify.1/AB/L110/load_ffn.0", TaskName("verify", 1, "AB", "L110", "load_ffn", part=0)),
        ("transition.0/A/draft/kv_out#0", TaskName("transition", 0, "A", "draft", "kv_out", micro=0)),
    ],
)
def test_a_name_is_taken_apart(name: str, parts: TaskName) -> None:
    assert parse(name) == parts


@pytest.mark.parametrize(
    "name",
    [
        "",
        "verify",
        "decode.0/A/L07/ffn.3",
        "verify.0/a/L07/ffn.3",
        "verify.0/A/L07/ffn.",
        "verify.0/A/L07/ffn#1.3",
        "verify.-1/A/L07/ffn",
        "verify.\N{ARABIC-INDIC DIGIT ONE}/A/L07/ffn",
        "verify.0/A/L07/ffn.3\n",
        " verify.0/A/L07/ffn.3",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a task"):
        parse(name)


def test_a_ring_fills_its_slots_in_turn() -> None:
    ring, filled = Ring("ring", 3), []
    for task in range(5):
        filled.append(ring.slot)
        ring.used_by([task])
    assert filled == [("ring", 0), ("ring", 1), ("ring", 2), ("ring", 0), ("ring", 1)]


def test_a_task_says_which_slot_it_fills() -> None:
    b = Builder(ring_slots=2)
    options: dict[str, Any] = {"stream": "h2d", "kind": "load", "work": ()}
    b.add("verify.0/A/L00/load_attention", slot=b.rings().ring.slot, **options)
    b.add("verify.0/A/L00/attention", **options)
    assert [task.slot for task in b.graph().tasks] == [("ring", 0), None]


def test_tasks_that_are_taken_off_keep_their_numbers() -> None:
    b = Builder(ring_slots=2)
    first = b.add("verify.0/A/head/logits", "cpu", "head", ())
    b.round_ends += [(first,), (first,)]
    assert [task.name for task in b.take()] == ["verify.0/A/head/logits"]
    assert b.add("verify.1/A/head/logits", "cpu", "head", (), (first,)) == 1
    assert [task.deps for task in b.take()] == [(0,)]
    assert (b.take(), b.round_ends) == ([], [(0,)])
