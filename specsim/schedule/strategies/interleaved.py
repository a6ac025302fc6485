"""Two batches, two slots: the target verifies A while the draft proposes for B; then they swap.

The way of SpecOffload (arXiv 2505.10259). It streams the target once per slot, so twice per round: it pays where
verifying grows with the batch or drafting takes about as long as verifying.
"""

from __future__ import annotations

from specsim.schedule.round import RoundLowering, RoundState


def lower_round(low: RoundLowering, state: RoundState) -> None:
    if "A" not in state.proposed:  # the very first slot has nothing to overlap A's drafting with
        low.draft("A", state)
    low.draft("B", state)
    low.verify("A", state)
    low.draft("A", state, low.number + 1)
    low.verify("B", state)
