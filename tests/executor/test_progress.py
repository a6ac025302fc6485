"""The progress line: what it says, how often it is drawn, and that only a terminal sees it."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import pytest

from executor.progress import Progress, ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


MIDWAY = Progress(
    phase="prefill 3/8",
    requests=512,
    prefilled=192,
    finished=124,
    tokens=1234,
    wanted=4000,
    prefill_s=12.0,
    decode_s=23.0,
    bytes_moved=66_500_000_000,
    acceptance=0.71,
)


def test_the_line_says_where_how_far_how_fast_and_how_long() -> None:
    assert MIDWAY.line() == (
        "prefill 3/8  |  124 of 512 requests  1,234 tokens  35.3 tokens/s  acceptance 0.71  1.9 GB/s  about 2 min left"
    )


def test_what_is_not_known_yet_is_not_said() -> None:
    start = Progress(phase="loading", requests=1)
    assert start.line() == "loading  |  0 of 1 requests  0 tokens"
    assert replace(start, tokens=8, decode_s=0.01).line() == "loading  |  0 of 1 requests  8 tokens  800 tokens/s"


@pytest.mark.parametrize(
    ("rate", "text"), [(0.05, "0.05"), (3.14159, "3.14"), (35.26, "35.3"), (123.4, "123"), (12345.0, "12,345")]
)
def test_rates_keep_three_digits(rate: float, text: str) -> None:
    line = Progress(phase="round 1", requests=1, tokens=100, decode_s=100 / rate).line()
    assert line.endswith(f"  {text} tokens/s")


def test_what_is_left_is_prefill_and_decoding_each_at_its_own_rate() -> None:
    half = Progress(phase="round 5", requests=8, prefilled=4, tokens=100, wanted=60, prefill_s=20.0, decode_s=50.0)
    assert half.seconds_left == 20.0 / 4 * 4 + 50.0 / 100 * 60
    assert replace(half, prefilled=8).seconds_left == 30.0  # a long prefill says nothing about the rounds
    assert replace(half, prefilled=0).seconds_left is None
    assert replace(half, tokens=0).seconds_left is None
    assert replace(half, decode_s=0.0).seconds_left is None


@pytest.mark.parametrize(
    ("wanted", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (600, "10 min"), (3599, "60 min"), (3600, "1.0 h"), (9000, "2.5 h")],
)
def test_time_left_is_rounded_to_what_is_known_of_it(wanted: int, text: str) -> None:
    line = Progress(phase="round 1", requests=1, prefilled=1, tokens=10, wanted=wanted, decode_s=10.0).line()
    assert line.endswith(f"  about {text} left")


def test_a_terminal_is_redrawn_five_times_a_second_at_most_and_cleared_in_the_end() -> None:
    terminal, clock = Terminal(), Clock()
    with ProgressLine(terminal, clock) as line:
        for moment, phase in (
            (0.0, "one"),
            (0.1, "two"),
            (0.19, "three"),
            (0.25, "four"),
            (0.44, "five"),
            (0.5, "six"),
        ):
            clock.now = 100.0 + moment
            line.update(Progress(phase, 1))
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert [text.split("  ")[0] for text in drawn] == ["", "one", "four", "six", ""]


def test_elsewhere_nothing_is_written() -> None:
    stream = io.StringIO()
    with ProgressLine(stream, Clock()) as line:
        line.update(MIDWAY)
    assert stream.getvalue() == ""


def test_a_line_is_cut_before_it_would_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    class Narrow(Terminal):
        def fileno(self) -> int:
            return 2

    monkeypatch.setattr("executor.progress.os.get_terminal_size", lambda _: os.terminal_size((40, 24)))
    terminal = Narrow()
    ProgressLine(terminal, Clock()).update(MIDWAY)
    assert terminal.getvalue() == "\r\x1b[K" + MIDWAY.line()[:39]


def test_an_error_clears_the_line_too() -> None:
    terminal = Terminal()

    def fail() -> None:
        with ProgressLine(terminal, Clock()) as line:
            line.update(MIDWAY)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert terminal.getvalue().endswith(" left\r\x1b[K")
