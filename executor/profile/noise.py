"""What disturbed the measurements: other programs, or a machine that got slower meanwhile.

Samples alone do not show it: a steady load slows all of them alike, and so does a hot processor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from executor.profile.sampling import Samples
from specsim.here.system import busy_seconds

#: other programs that keep this much of a core busy are worth a warning
FOREIGN_CORES: Final = 0.1
#: so much slower at the end than at the beginning is worth one, too
SLOWER: Final = 1.1
#: rounds at least, to have a beginning and an end
_ROUNDS: Final = 6


@contextmanager
def watched(
    part: str,
    noise: dict[str, str],
    *,
    busy: Callable[[], float | None] = busy_seconds,
    own: Callable[[], float] = time.process_time,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[None]:
    """Note under `part` if other programs were busy on this process's cores meanwhile."""
    before, used, start = busy(), own(), clock()
    yield
    after, elapsed = busy(), clock() - start
    if before is not None and after is not None:
        foreign = (after - before - (own() - used)) / elapsed
        if foreign > FOREIGN_CORES:
            note(part, noise, f"other programs kept {foreign:.1f} cores busy")


def throttled(part: str, noise: dict[str, str], samples: Mapping[Hashable, Samples]) -> None:
    """Note under `part` if its probes took longer in the last third of their rounds than in the first."""
    ratios = []
    for taken in samples.values():
        third = len(taken) // 3
        if len(taken) >= _ROUNDS:
            ratios.append(statistics.median(taken[-third:]) / statistics.median(taken[:third]))
    slower = statistics.median(ratios) if ratios else 1.0
    if slower > SLOWER:
        note(part, noise, f"{slower - 1:.0%} slower at the end than at the beginning: throttled, or disturbed")


def note(part: str, noise: dict[str, str], what: str) -> None:
    noise[part] = f"{noise[part]}; {what}" if part in noise else f"noisy: {what}"
