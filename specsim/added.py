"""What speculation adds to each memory in each phase, item by item: a plan's peaks less those of the same plan without.

Candidates are a chain, so there are no tree masks. What a pass over gamma + 1 positions takes more than one over single
ones does not grow evenly (FFNs and logits come in chunks), so it is a difference, not a formula of its own.
"""

from __future__ import annotations

from typing import Final

import msgspec

from specsim.case import Case
from specsim.decision import Decision
from specsim.memory import Items, Peaks, peak_items

#: item of `specsim.memory` -> what of it is there for candidates only
FOR_CANDIDATES: Final = {
    "kv": "candidate kv",
    "kv staging": "candidate kv staging",
    "hidden states": "verify activations",
    "attention workspace": "verify activations",
    "ffn workspace": "verify activations",
    "logits": "candidate logits",
    "workspace": "verify activations",
    "allocator rounding": "allocator rounding",
}
#: items that hold a model's weights, or let them pass; all others are there to generate
OF_WEIGHTS: Final = frozenset(
    {"weights", "pinned weights", "pageable weights", "draft weights", "draft weights (to load)"}
    | {"head", "embedding", "ring", "disk staging"}
)


def without_speculation(decision: Decision) -> Decision:
    """The same plan, but that nothing is drafted and each pass has one position of a sequence."""
    return msgspec.structs.replace(decision, policy=msgspec.structs.replace(decision.policy, gamma=0, draft=None))


def added_items(case: Case, decision: Decision) -> Peaks:
    """The bytes that speculation adds, by phase, memory and item; their sums are exactly the difference of the totals
    of `peak_items` with and without it."""
    plain = peak_items(case, without_speculation(decision))
    return {
        phase: {memory: _more(items, plain[phase][memory]) for memory, items in memories.items()}
        for phase, memories in peak_items(case, decision).items()
    }


def generation_bytes(items: Items) -> float:
    """What of a memory's items serves to generate: caches, candidates, activations, logits; no weights."""
    return sum(size for item, size in items.items() if item not in OF_WEIGHTS)


def _more(items: Items, plain: Items) -> Items:
    more: Items = {}
    for item, size in items.items():
        extra = size - plain.get(item, 0.0)
        if extra:
            name = FOR_CANDIDATES.get(item, item)
            more[name] = more.get(name, 0.0) + extra
    return more
