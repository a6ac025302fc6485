"""Random numbers that belong to a place, not to an order: (seed, request, position, purpose) -> uniform in [0, 1).

There is no generator with a state, so the batch that a request travels in, the round, a retry and a resumed run
change no draw. A proposal that is thrown away leaves its position to be drafted again with the same number. That
is exact all the same: what is emitted never depended on a draw of a position after it.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from hashlib import blake2b


class Purpose(IntEnum):
    """What a draw decides. Of each purpose, at most one draw at a position has a part in what is emitted there."""

    DRAFT = 0  # the draft's proposal
    ACCEPT = 1  # whether the target takes it
    TARGET = 2  # the target's own token: from the residual after a rejection, from p where nothing was proposed


def uniform(seed: int, request: int, position: int, purpose: Purpose) -> float:
    """A multiple of 2^-53 in [0, 1). `seed`, `request` and `position` are below 2^64.

    Counter mode, as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with BLAKE2b as the
    mixing function: the same on every platform.
    """
    place = struct.pack("<4Q", seed, request, position, purpose)
    (bits,) = struct.unpack("<Q", blake2b(place, digest_size=8).digest())
    return float((bits >> 11) * 2.0**-53)
