"""From counts to layers: spread each choice evenly, so that every stretch of the pass has the same mix of work."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice", bound=Hashable)


def spread(counts: Mapping[Choice, int], groups: int, size: int) -> list[tuple[Choice, ...]]:
    """Deal `counts` of each choice into `groups` groups of `size`: each gets its share of every choice, rounded down or
    up. Within a group choices stand in the order of `counts`. The counts must add up to groups * size."""
    if not groups:
        return []
    whole = {choice: n // groups for choice, n in counts.items()}
    extra = {choice: n % groups for choice, n in counts.items()}  # groups that get one more
    left = dict(extra)
    dealt = []
    for ahead in range(groups - 1, -1, -1):  # groups after this one

        def rank(choice: Choice, ahead: int = ahead) -> tuple[bool, bool, float]:
            """Who has to be in every group from here on comes first, then who lags furthest behind its share."""
            return left[choice] <= ahead, left[choice] == 0, extra[choice] * ahead / groups - left[choice]

        more = sorted(counts, key=rank)[: size - sum(whole.values())]
        for choice in more:
            left[choice] -= 1
        dealt.append(tuple(c for c in counts for _ in range(whole[c] + (c in more))))
    return dealt
