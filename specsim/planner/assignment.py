"""From counts to layers: spread each choice evenly, so that every stretch of the pass has the same mix of work."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice", bound=Hashable)


def spread(counts: Mapping[Choice, int], groups: int, size: int) -> list[tuple[Choice, ...]]:
    """Deal `counts` of each choice into `groups` groups of `size`, each group as near to the overall mix as whole
    numbers allow. Within a group choices stand in the order of `counts`. The counts must add up to groups * size."""
    given = {choice: 0 for choice in counts}
    order = {choice: i for i, choice in enumerate(counts)}
    dealt = []
    for group in range(1, groups + 1):
        hand: list[Choice] = []
        for _ in range(size):
            # The choice that lags furthest behind its share so far; ties go to the first.
            lag = {choice: counts[choice] * group / groups - given[choice] for choice in counts}
            choice = max(lag, key=lambda c: (lag[c], -order[c]))
            given[choice] += 1
            hand.append(choice)
        dealt.append(tuple(sorted(hand, key=order.__getitem__)))
    return dealt

