"""Whether two lists of outputs differ only where the reference itself was undecided.

bf16 has 8 bits of significand, so the best two of 32,000 logits are often equal, or neighbours; which of them wins
then depends on the order of additions, hence on the batch. From such a token on the texts are different ones. So the
first token in which an output differs is judged, by the reference's margin there: it is a tie if that is at most twice
what margins move by when the reference itself computes in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Tokens = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Reference:
    """`tokens` and their margins over the second best, logits, each [requests][tokens]; `noise` is the most that a
    margin moved."""

    tokens: Tokens
    margin: Sequence[Sequence[float]]
    noise: float

    @property
    def tie(self) -> float:
        """The largest margin that counts as a tie: two orders of additions may err in opposite directions."""
        return 2 * self.noise


@dataclass(frozen=True, slots=True)
class Parity:
    """`identical` is the share of tokens before the first difference; `requests` of `of` are identical to the end.
    `margins` are the reference's at the first differences, `tie` its limit, and `ties` the share of all its tokens
    within that: a decoder that is wrong passes with a chance of `ties` to the power of its differences."""

    identical: float
    requests: int
    of: int
    margins: tuple[float, ...]
    tie: float
    ties: float

    @property
    def explained(self) -> bool:
        """Whether ties explain every difference."""
        return max(self.margins, default=0.0) <= self.tie

    def __str__(self) -> str:
        text = f"{self.identical:.1%} of tokens identical, {self.requests} of {self.of} requests to the end"
        if self.margins:
            text += f"; first differences at margins up to {max(self.margins):.3f} (up to {self.tie:.3f} is a tie, as"
            text += f" {self.ties:.0%} of all tokens are)"
        return text


def compare(reference: Reference, tokens: Tokens) -> Parity:
    """`tokens` may be those of the first requests only. Raises ValueError where an output's length differs."""
    count, same, margins = len(tokens), 0, []
    for i, (want, have) in enumerate(zip(reference.tokens[:count], tokens, strict=True)):
        at = next((k for k, (a, b) in enumerate(zip(want, have, strict=True)) if a != b), None)
        same += len(want) if at is None else at
        if at is not None:
            margins.append(reference.margin[i][at])
    every = [margin for row in reference.margin for margin in row]
    ties = sum(margin <= reference.tie for margin in every) / len(every)
    return Parity(
        same / sum(map(len, tokens)), count - len(margins), count, tuple(sorted(margins)), reference.tie, ties
    )
