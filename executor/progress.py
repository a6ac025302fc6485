"""One line on stderr that says how far a run is, for a person who watches."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TextIO

from specsim.units import show

#: seconds between two writes
INTERVAL_S: Final = 0.2
#: of a terminal that does not tell
COLUMNS: Final = 120


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `phase` is what it does now ("prefill 3/8", "round 57"); `prefilled` and `finished` count
    requests, `tokens` those committed, `wanted` those that requests may still gain at most. `prefill_s` and `decode_s`
    are the seconds spent in either so far, `bytes_moved` what all streams moved in them; `acceptance` is the share of
    judged tokens that were accepted, None where nothing was proposed."""

    phase: str
    requests: int
    prefilled: int = 0
    finished: int = 0
    tokens: int = 0
    wanted: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    bytes_moved: int = 0
    acceptance: float | None = None

    @property
    def seconds(self) -> float:
        return self.prefill_s + self.decode_s

    @property
    def seconds_left(self) -> float | None:
        """What is left to prefill and to decode, each at its mean rate so far; None before both have a rate.

        Requests may end before their last token, so this is an upper estimate.
        """
        if not (self.prefilled and self.tokens and self.decode_s):
            return None
        prefill = self.prefill_s / self.prefilled * (self.requests - self.prefilled)
        return prefill + self.decode_s / self.tokens * self.wanted

    def line(self) -> str:
        """For a person, such as "prefill 3/8  |  24 of 64 requests  1,234 tokens  35.2 tokens/s"."""
        words = [f"{self.finished:,} of {self.requests:,} requests", f"{self.tokens:,} tokens"]
        if self.tokens and self.seconds:
            words.append(f"{_rate(self.tokens / self.seconds)} tokens/s")
        if self.acceptance is not None:
            words.append(f"acceptance {self.acceptance:.2f}")
        if self.bytes_moved and self.seconds:
            words.append(show(self.bytes_moved / self.seconds, "bytes/s", digits=2))
        if self.seconds_left is not None:
            words.append(f"about {_time(self.seconds_left)} left")
        return "  ".join([self.phase, "|", *words])


class ProgressLine:
    """Redraws one line of a terminal, at most every `INTERVAL_S`, and clears it in the end; elsewhere draws nothing."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._terminal = self._stream.isatty()
        self._next = -float("inf")  # the first update is always drawn

    def update(self, progress: Progress) -> None:
        now = self._clock()
        if self._terminal and now >= self._next:
            self._next = now + INTERVAL_S
            self._draw(progress.line()[: _columns(self._stream) - 1])  # a full line would wrap, and stay

    def say(self, text: str) -> None:
        """A line that stays, on a terminal or not."""
        self.close()
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Clear the line."""
        if self._terminal:
            self._draw("")

    def _draw(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")  # ANSI: clear to the end of the line
        self._stream.flush()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except OSError:
        return COLUMNS


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
