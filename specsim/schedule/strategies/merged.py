"""Two batches in one pass: each unit is fetched once for both, and one batch's CPU work hides behind the other's
GPU work. Where a pass is bound by streaming weights, two batches cost about as much as one."""

from __future__ import annotations

from specsim.schedule.round import RoundLowering, RoundState


def lower_round(low: RoundLowering, state: RoundState) -> None:
    low.draft("A", state)
    low.draft("B", state)
    low.verify("AB", state)
