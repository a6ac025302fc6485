"""From counts to layers: spread each choice evenly, so that every stretch of the pass has the same mix of work."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

Choice = TypeVar("Choice", bound=Hashable)


def spread(counts: Mapping[Choice, int], groups: int, size: int) -> list[tuple[Choice, ...]]:
    """Deal `counts` of each choice into `groups` groups of `size`, each group as near to the overall mix as whole
    numbers allow. Within a group choices stand in the order of `counts`. The counts must add up to groups * size."""
    choices, wanted = list(counts), list(counts.values())
    given = [0] * len(choices)
    dealt = []
    for group in range(1, groups + 1):
        hand = []
        for _ in range(size):
            # The choice that lags furthest behind its share so far; ties go to the first.
            lags = [n * group / groups - g for n, g in zip(wanted, given, strict=True)]
            pick = lags.index(max(lags))
            given[pick] += 1
            hand.append(pick)
        dealt.append(tuple(choices[pick] for pick in sorted(hand)))
    return dealt
