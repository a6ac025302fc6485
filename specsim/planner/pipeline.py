"""The stages of a pipeline, each placed alone, put together: one decision, and the time that it promises."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from specsim.planner.candidates import Candidate
from specsim.planner.problem import Placed


def together(candidate: Candidate, placed: Sequence[Placed], rounds: float, prefills: float, sweeps: int) -> Placed:
    """Stages one after another, the first of which also drafts.

    A batch goes from stage to stage. Where others follow it closely, no round is shorter than all passes through the
    slowest stage; where it is alone, or the batches of a pass keep together, a round is the sum of all stages.
    """
    own, sweep = [p.round_s for p in placed], [p.prefill_s for p in placed]
    batches = candidate.policy.batches if candidate.strategy == "interleaved" else 1
    round_s = max(*own, sum(own) / batches)
    prefill_s = max(*sweep, sum(sweep) / sweeps)
    decision = placed[0].decision
    layers = tuple(layer for p in placed for layer in p.decision.layers)
    decision = msgspec.structs.replace(decision, layers=layers)
    return Placed(decision, rounds * round_s + prefills * prefill_s, round_s, prefill_s)
