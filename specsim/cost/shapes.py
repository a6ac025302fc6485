"""The shape of one pass over the layers, as totals over ragged rows: nothing is padded, so nothing else is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PassShape:
    """Totals over the sequences of one pass.

    rows: sequences; tokens: positions computed; attended: (query, key) pairs; cached: positions whose K and V are read
    back from the cache; head_rows: positions that need logits.
    """

    rows: float
    tokens: float
    attended: float
    cached: float
    head_rows: float

    def __add__(self, other: PassShape) -> PassShape:
        return PassShape(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.attended + other.attended,
            self.cached + other.cached,
            self.head_rows + other.head_rows,
        )

    def split(self, parts: int) -> PassShape:
        """One of `parts` equal micro-batches."""
        return PassShape(*(getattr(self, name) / parts for name in self.__slots__))


def decode_shape(rows: float, q: int, context: float, window: int | None = None) -> PassShape:
    """`rows` sequences with `context` cached positions each (mean) and `q` new ones: 1 plain, gamma + 1 verify."""
    if window is None:
        return PassShape(rows, rows * q, rows * _reach(q, context), rows * context, rows * q)
    short = min(q, max(0, math.floor(window - context)))  # queries whose window leaves nothing out
    attended = _reach(short, context) + (q - short) * window
    return PassShape(rows, rows * q, rows * attended, rows * min(context, window - 1), rows * q)


def _reach(queries: int, context: float) -> float:
    """Query i sees the cache, its i predecessors and itself: the sum over i of context + i + 1."""
    return queries * context + queries * (queries + 1) / 2


def prefill_shape(lengths: Sequence[float], window: int | None = None) -> PassShape:
    """Whole prompts of the given `lengths`: causal attention, nothing cached yet, logits of the last position only."""
    tokens = float(sum(lengths))
    attended = sum(_causal_pairs(length, window) for length in lengths)
    return PassShape(len(lengths), tokens, attended, 0.0, len(lengths))


def _causal_pairs(length: float, window: int | None) -> float:
    if window is None or length <= window:
        return length * (length + 1) / 2
    return window * (window + 1) / 2 + (length - window) * window
