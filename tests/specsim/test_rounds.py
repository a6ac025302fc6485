"""Rounds are found by the names of their tasks."""

from __future__ import annotations

import pytest

from specsim.errors import InputError
from specsim.timeline import Span, Timeline
from specsim.timeline.rounds import cut_rounds, middle_rounds, round_ends


def passes(*rounds: int) -> Timeline:
    """Rounds of two seconds: a load that begins a second before its pass, and the pass."""
    spans = []
    for place, number in enumerate(rounds):
        start = 10.0 + 2 * place
        spans.append(Span(f"verify.{number}/A/L00/load_ffn.0", "h2d", "load", start - 1, start))
        spans.append(Span(f"verify.{number}/A/head/logits", "gpu", "head", start, start + 2))
    spans.append(Span("verify.99/A/head/logits", "gpu", "head", 90.0, 90.0))  # lowered, and never needed
    return Timeline(tuple(spans))


def test_a_round_ends_with_its_last_logits() -> None:
    assert round_ends(passes(0, 1, 2)) == {0: 12.0, 1: 14.0, 2: 16.0}
    both = Timeline(
        (Span("verify.3/A/head/logits", "cpu", "head", 0, 1), Span("verify.3/B/head/logits", "cpu", "head", 1, 4))
    )
    assert round_ends(both) == {3: 4}


def test_rounds_are_cut_from_the_end_of_the_one_before() -> None:
    cut = cut_rounds(passes(0, 1, 2, 3), 1, 2)
    assert [(s.name, s.start, s.end) for s in cut.spans if s.name.startswith("verify.2")] == [
        ("verify.2/A/L00/load_ffn.0", 1.0, 2.0),
        ("verify.2/A/head/logits", 2.0, 4.0),
    ]
    assert cut.makespan == 4.0


def test_rounds_that_are_not_there() -> None:
    with pytest.raises(InputError, match="rounds 3 to 4 are not in the timeline"):
        cut_rounds(passes(0, 1, 2, 3), 3, 2)


def test_the_middle_of_a_job_does_not_cross_from_one_wave_to_the_next() -> None:
    assert middle_rounds(passes(0, 1, 2, 3, 4, 5, 6), 2) == (3, 2)
    assert middle_rounds(passes(0, 1, 2, 5, 6), 3) == (1, 2)
    assert middle_rounds(passes(0, 1), 2) == (1, 1)
    with pytest.raises(InputError, match="no two rounds in a row"):
        middle_rounds(passes(0), 1)
