"""From counts to layers: spread each choice evenly, so that every stretch of the pass has the same mix of work."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice", bound=Hashable)


def spread(counts: Mapping[Choice, int], groups: int, size: int) -> list[tuple[Choice, ...]]:
    """Deal `counts` of each choice into `groups` groups of `size`: each gets its share of every choice, rounded down or
    up. Within a group choices stand in the order of `counts`. The counts must add up to groups * size."""
    choices, wanted = list(counts), list(counts.values())
    if not groups:
        return []
    whole = [n // groups for n in wanted]
    left = [n % groups for n in wanted]  # groups that get one more
    dealt = []
    for group in range(groups):
        # Who has to be in every group from here on comes first, then who lags furthest behind its share so far.
        ranks = [
            (n < groups - group, n == 0, n - total % groups * (groups - group - 1) / groups)
            for n, total in zip(left, wanted, strict=True)
        ]
        order = sorted(range(len(choices)), key=lambda i: (ranks[i][0], ranks[i][1], -ranks[i][2]))
        more = set(order[: size - sum(whole)])
        hand: list[Choice] = []
        for i, choice in enumerate(choices):
            left[i] -= i in more
            hand += [choice] * (whole[i] + (i in more))
        dealt.append(tuple(hand))
    return dealt
