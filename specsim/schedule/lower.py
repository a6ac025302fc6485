"""Lower a decision to task graphs: consecutive decode rounds, or the prefill and the transition to decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from specsim.case import Case
from specsim.cost import work as cost
from specsim.cost.shapes import prefill_shape
from specsim.decision import Decision, DraftPolicy
from specsim.schedule.drafting import draft_stream, micro_batches
from specsim.schedule.graph import Builder, Graph
from specsim.schedule.passes import Deps, PassPlan, lower_pass, on_main
from specsim.schedule.round import RoundLowering, RoundShape, RoundState
from specsim.schedule.strategies import interleaved, merged, serial

STRATEGIES: Final[dict[str, Callable[[RoundLowering, RoundState], None]]] = {
    "serial": serial.lower_round,
    "merged": merged.lower_round,
    "interleaved": interleaved.lower_round,
}


def lower_rounds(case: Case, decision: Decision, shape: RoundShape, rounds: int) -> Graph:
    """`rounds` consecutive decode rounds of the same shape. Weights are prefetched across their boundaries, so the
    second round shows the steady state and the first how it is reached."""
    b = Builder(decision.policy.ring_slots)
    state = RoundState({}, {})
    for number in range(rounds):
        STRATEGIES[decision.strategy](RoundLowering(b, case, decision, shape, number), state)
        b.round_ends.append(tuple(task for ends in state.verified.values() for task in ends))
    return b.graph()


def lower_prefill(case: Case, decision: Decision, lengths: Sequence[float]) -> Graph:
    """Prompts of the given `lengths`: sweeps over the target's layers, then the draft's own prefill.

    A sweep takes `prefill_batch` prompts, so its weights are streamed once for all of them.
    """
    policy, machine = decision.policy, case.machine
    b = Builder(policy.ring_slots)
    layers = on_main(decision.layers, machine.main)
    ends: Deps = ()
    for number, first in enumerate(range(0, len(lengths), policy.prefill_batch)):
        shape = prefill_shape(lengths[first : first + policy.prefill_batch], case.target.sliding_window)
        plan = PassPlan(case.target, layers, machine.main, "prefill", number, policy.prefill_micro_batches)
        ends = lower_pass(b, plan, {"A": shape}, {"A": ends})["A"]
    b.round_ends.append(ends)
    b.round_ends.append(_lower_transition(b, case, policy.gamma, policy.draft, lengths, ends))
    return b.graph()


def lower_transition(case: Case, gamma: int, draft: DraftPolicy, lengths: Sequence[float]) -> Graph:
    """Only the draft's part of a prefill: load its weights if they had to wait, and fill its KV."""
    b = Builder(ring_slots=0)
    b.round_ends.append(_lower_transition(b, case, gamma, draft, lengths, ()))
    return b.graph()


def _lower_transition(
    b: Builder, case: Case, gamma: int, policy: DraftPolicy | None, lengths: Sequence[float], after: Deps
) -> Deps:
    draft = case.draft
    if gamma == 0 or policy is None or draft is None:
        return after
    gpu = case.machine.gpu is not None
    prefix = "transition.0/A/draft"
    ready = after
    if policy.waits:
        weights = (cost.copy(draft.weight_bytes),)
        way = ("h2d", "load") if policy.processor == "gpu" else ("disk", "read")
        ready = (b.add(f"{prefix}/load", *way, weights, after),)
    if policy.kv == "none":
        return ready
    count = micro_batches(policy, len(lengths))
    whole = prefill_shape(lengths, draft.sliding_window)
    work = cost.whole_pass(draft, whole.split(count))
    kv_out = (cost.copy(draft.layers * cost.kv_bytes(draft, whole.tokens / count)),)
    ends = []
    for micro in range(count):
        tag = f"#{micro}" if count > 1 else ""
        done = b.add(f"{prefix}/prefill{tag}", draft_stream(policy), "draft", work, ready)
        if gpu and policy.processor == "gpu" and policy.kv == "ram":
            done = b.add(f"{prefix}/kv_out{tag}", "d2h", "kv", kv_out, (done,))
        ends.append(done)
    return tuple(ends)
