"""Caches of requests that have ended, kept for those that begin alike: the next turn of a conversation reads only what
is new."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from executor.decoder.cache import SequenceCache

#: a shorter beginning is not worth the cache of another
LEAST_TOKENS: Final = 16


@dataclass(slots=True, eq=False)
class Entry:
    """`cache` holds K and V of `tokens`, the draft's of the first of them, as its length says."""

    tokens: tuple[int, ...]
    cache: SequenceCache
    draft_cache: SequenceCache | None


@dataclass(slots=True, eq=False)
class Kept:
    """What is kept takes only places that nobody in flight needs: `evict` gives those of the longest unused back.
    Whoever admits and lets go calls all of it."""

    give_back: Callable[[Entry], None]
    entries: list[Entry] = field(default_factory=list)  # the latest last

    @property
    def positions(self) -> int:
        """Places that would be free without it."""
        return sum(entry.cache.capacity for entry in self.entries)

    def keep(self, entry: Entry) -> None:
        self.entries.append(entry)

    def claim(self, tokens: Sequence[int]) -> tuple[Entry, int] | None:
        """The entry that begins with most of `tokens`, and how many those are; it is kept no longer. None where there
        are few, or where more than half of an entry is about something else: then another one comes back for it."""
        found = max(((common(entry.tokens, tokens), entry) for entry in self.entries), key=_length, default=None)
        if found is None or found[0] < max(LEAST_TOKENS, len(found[1].tokens) / 2):
            return None
        self.entries.remove(found[1])
        return found[1], found[0]

    def evict(self) -> bool:
        """Give the places of the longest unused entry back; False where there is none."""
        if not self.entries:
            return False
        self.give_back(self.entries.pop(0))
        return True


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    both = zip(a, b, strict=False)
    return next((i for i, (one, other) in enumerate(both) if one != other), min(len(a), len(b)))


def _length(found: tuple[int, Entry]) -> int:
    return found[0]
