"""Two batches, two slots: the target verifies A while the draft proposes for B; then they swap.

The way of SpecOffload (arXiv 2505.10259). It streams the target once per slot, so twice per round: it pays where
verifying grows with the batch or drafting takes about as long as verifying.

Over the stages of a pipeline more batches are in flight, in turn: while one is drafted for, each of the others is in a
stage of its own (the micro-batches of GPipe, arXiv 1811.06965).
"""

from __future__ import annotations

from specsim.schedule.round import RoundLowering, RoundState


def lower_round(low: RoundLowering, state: RoundState) -> None:
    letters = low.decision.policy.letters
    others, last = letters[:-1], letters[-1]
    for batch in others:
        if batch not in state.proposed:  # the very first slots have nothing to overlap drafting with
            low.draft(batch, state)
    low.draft(last, state)
    for batch in others:
        low.verify(batch, state)
        low.draft(batch, state, low.number + 1)
    low.verify(last, state)
