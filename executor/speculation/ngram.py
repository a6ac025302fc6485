"""Drafting without a model: what followed the last time that the context ended like this (prompt lookup decoding)."""

from __future__ import annotations

from collections.abc import Sequence


class NgramIndex:
    """The n-grams of one sequence, up to `longest` tokens each; grows with it in constant time per token."""

    def __init__(self, tokens: Sequence[int] = (), longest: int = 4) -> None:
        self.longest = longest
        self._tokens: list[int] = []
        #: n-gram -> where its last occurrence ends; the one that ends the sequence has no successor and is left out
        self._end: dict[tuple[int, ...], int] = {}
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append `tokens` for good: only what the target has emitted."""
        for token in tokens:
            end = len(self._tokens)
            for suffix in self._suffixes():
                self._end[suffix] = end
            self._tokens.append(token)

    def propose(self, gamma: int) -> tuple[int, ...]:
        """`gamma` tokens that followed the latest earlier occurrence of the longest suffix that has one; else none.

        A continuation that reaches the end of the sequence goes on into itself, so that a loop is proposed as a loop.
        """
        for suffix in self._suffixes():
            if suffix in self._end:
                first = self._end[suffix]
                period = len(self._tokens) - first
                return tuple(self._tokens[first + i % period] for i in range(gamma))
        return ()

    def _suffixes(self) -> list[tuple[int, ...]]:
        """Of the sequence, the longest first."""
        tail = tuple(self._tokens[-self.longest :])
        return [tail[first:] for first in range(len(tail))]


def propose(tokens: Sequence[int], gamma: int, longest: int = 4) -> tuple[int, ...]:
    """`NgramIndex.propose` of `tokens`, for a context that is seen once."""
    return NgramIndex(tokens, longest).propose(gamma)
