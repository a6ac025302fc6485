"""Who is prefilled together: sequences by sweep, and of a sweep by micro-batch of attention."""

from __future__ import annotations

from collections.abc import Sequence

from specsim.case import Case
from specsim.decision import Policy
from specsim.positions import sweep_rows, sweep_tokens


def sweeps(case: Case, policy: Policy, lengths: Sequence[float]) -> list[slice]:
    """Neighbours, at most `prefill_batch` of them, with no more tokens than memory is planned for, all together and in
    a micro-batch; or one sequence that has more."""
    found: list[slice] = []
    first = 0
    most, rows = sweep_tokens(case.workload, policy), sweep_rows(case.workload, policy)
    for at in range(1, len(lengths)):
        together = lengths[first : at + 1]
        if len(together) > policy.prefill_batch or sum(together) > most or fullest(together, policy) > rows:
            found.append(slice(first, at))
            first = at
    return [*found, slice(first, len(lengths))] if lengths else []


def fullest(lengths: Sequence[float], policy: Policy) -> float:
    """Tokens of the fullest micro-batch."""
    return max(sum(lengths[i] for i in share) for share in deal(lengths, policy.prefill_micro_batches))


def deal(lengths: Sequence[float], shares: int) -> list[list[int]]:
    """Deal sequences to `shares` micro-batches, longest first, each into the emptiest so far: the fullest then holds
    at most the mean and one longest sequence, which is what the plan's memory counts on. Returns their indices."""
    dealt: list[list[int]] = [[] for _ in range(shares)]
    loads = [0.0] * shares
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        emptiest = loads.index(min(loads))
        dealt[emptiest].append(i)
        loads[emptiest] += lengths[i]
    return [sorted(share) for share in dealt]
