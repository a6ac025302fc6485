"""One batch: draft, then verify. The link fills the ring with the first layers meanwhile."""

from __future__ import annotations

from specsim.schedule.round import RoundLowering, RoundState


def lower_round(low: RoundLowering, state: RoundState) -> None:
    low.draft("A", state)
    low.verify("A", state)
