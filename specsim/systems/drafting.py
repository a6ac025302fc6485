"""What systems share that draft for one sequence and keep the draft's cache on the GPU."""

from __future__ import annotations

from specsim.acceptance import Acceptance, expected_tokens
from specsim.case import Case
from specsim.cost import work as cost
from specsim.cost.shapes import PassShape, decode_shape
from specsim.cost.work import Work
from specsim.systems.rounds import slowest_rounds
from specsim.systems.system import NODES, Policy

#: how the chance that a draft's w best guesses all miss falls with w, as w to this power: assumed, nowhere measured
MISSES_FALL = -0.5


def tree_acceptance(acceptance: Acceptance, width: int) -> Acceptance:
    """The chance per level that one of `width` guesses is right: 1 - (1 - p) width^MISSES_FALL."""
    hazards = tuple(1.0 - (1.0 - p) * width**MISSES_FALL for p in acceptance.hazards)
    return Acceptance(hazards, acceptance.kind, f"{acceptance.source}; best of {width}")


def rounds_of_one(case: Case, policy: Policy) -> tuple[float, list[float]]:
    """Rounds that one request takes after its first token, and its context at the points where these are sampled."""
    assert case.acceptance is not None, "speculation needs an acceptance"
    acceptance = tree_acceptance(case.acceptance, policy.width)
    rounds = slowest_rounds(acceptance, policy.gamma, 1, case.workload.output_tokens - 1)
    gained = rounds * expected_tokens(acceptance, policy.gamma)
    return rounds, [policy.padded + 1 + node * gained for node in NODES]


def kept_cache(case: Case, policy: Policy, context: float) -> tuple[Work, ...]:
    """One round's drafting: a step per level, each for `width` guesses over one cache."""
    assert case.draft is not None, "speculation needs a draft"
    one = decode_shape(1, 1, context, case.draft.sliding_window)
    width = policy.width
    level = PassShape(1, width, width * one.attended, one.cached, width)
    return tuple(cost.repeat(work, policy.gamma) for work in cost.whole_pass(case.draft, level))
