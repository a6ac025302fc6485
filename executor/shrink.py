"""Less at once, after out of memory: what a pass takes for a while goes by its sequences, so it gets half of them.

Committed tokens and their caches stay, as K and V are written to the places of their positions: a pass that was broken
off leaves nothing that counts.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import torch
from msgspec.structs import replace

from specsim.decision import Decision


@dataclass(frozen=True, slots=True)
class Smaller:
    """A decision with less at once; `what` says how much less, to a person."""

    decision: Decision
    what: str


def is_out_of_memory(error: BaseException) -> bool:
    """Of RAM or VRAM, however it is told: by Python, by torch's allocator of either, or by the kernel."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def smaller(decision: Decision, phase: str) -> Smaller | None:
    """What to go on with where a "prefill" or a "decode" ran out of memory; None where nothing is left to give up.

    Half the sequences in a sweep or in a batch; where that is one already, a ring of a slot less.
    """
    policy = decision.policy
    if phase == "prefill" and (at_once := min(policy.prefill_batch, policy.in_flight)) > 1:
        policy = replace(policy, prefill_batch=at_once // 2)
        what = f"{policy.prefill_batch} of {at_once} sequences at a time in prefill"
    elif phase == "decode" and policy.batch > 1:
        policy = replace(policy, batch=policy.batch // 2)
        what = f"{policy.batch} of {decision.policy.batch} sequences in a batch"
    elif policy.ring_slots > 1:
        policy = replace(policy, ring_slots=policy.ring_slots - 1)
        what = f"{policy.ring_slots} of {decision.policy.ring_slots} slots of the ring"
    else:
        return None
    return Smaller(replace(decision, policy=policy), what)
