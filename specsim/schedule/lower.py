"""Lower a decision to task graphs: consecutive decode rounds, or the prefill and the transition to decoding.

The `append_` functions add to a graph that goes on: an executor appends prefills and rounds as they come, and rings
and loads that run ahead know no boundary between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from specsim.case import Case
from specsim.cost import work as cost
from specsim.cost.shapes import prefill_shape
from specsim.decision import CHUNK_TOKENS, Decision, DraftPolicy, Policy
from specsim.memory import draft_slots
from specsim.positions import DRAFT_TOKENS, prompt_tokens_at_once, sweeps_at_once
from specsim.schedule.drafting import draft_stream, micro_batches
from specsim.schedule.graph import Builder, Graph
from specsim.schedule.passes import Deps, PassPlan, lower_pass, on_main
from specsim.schedule.round import RoundLowering, RoundShape, RoundState
from specsim.schedule.strategies import interleaved, merged, serial
from specsim.schedule.sweeps import sweeps
from specsim.stages import layout, one_share

STRATEGIES: Final[dict[str, Callable[[RoundLowering, RoundState], None]]] = {
    "serial": serial.lower_round,
    "merged": merged.lower_round,
    "interleaved": interleaved.lower_round,
}

#: from the number of the last round before a prefill to that of the first one after it
NEXT_WAVE: Final = 2


def builder(decision: Decision) -> Builder:
    """An empty graph with the rings that the policy has memory for."""
    policy = decision.policy
    slots = draft_slots(policy, policy.draft) if policy.draft is not None else 0
    return Builder(policy.ring_slots, slots, policy.tensor)


def append_round(
    b: Builder, case: Case, decision: Decision, shape: RoundShape, number: int, state: RoundState
) -> RoundLowering:
    """Append decode round `number` to `b`; its ends are the last of `b.round_ends` and in `state.verified`.

    After a prefill begin with `RoundState.after(ends, decision)` and with a number that is at least `NEXT_WAVE` above
    the last one: interleaved drafting has then used the number in between, for a round that never came.
    """
    low = RoundLowering(b, case, decision, shape, number)
    STRATEGIES[decision.strategy](low, state)
    b.round_ends.append(tuple(task for ends in state.verified.values() for task in ends))
    return low


def append_prefill(
    b: Builder,
    case: Case,
    decision: Decision,
    lengths: Sequence[float],
    after: Deps,
    first: int = 0,
    others: Sequence[float] = (),
) -> Deps:
    """Append sweeps over the target's layers for prompts of the given `lengths`, then the draft's own prefill; returns
    the tasks that end it. The ends of the sweeps and of the transition become two entries of `b.round_ends`.

    A sweep takes `prefill_batch` prompts (see `sweeps`), so its weights are streamed once for all of them. Sweeps are
    numbered from `first`, and the transition has the number of the first; the first sweep waits for `after`, its loads
    do not. Sweeps follow one another, over several stages closely: at most `sweeps_at_once` are under way. `others` are
    the lengths of sequences that the target has prefilled before; the draft may lack them.
    """
    policy, machine = decision.policy, case.machine
    layers, place, model = on_main(decision.layers, machine.main), layout(case, policy), one_share(case, policy)
    at_once = sweeps_at_once(policy)
    heads: list[Deps] = []
    for number, sweep in enumerate(sweeps(case, policy, lengths), first):
        shape = prefill_shape(lengths[sweep], case.target.sliding_window)
        plan = PassPlan(
            model,
            layers,
            machine.main,
            "prefill",
            number,
            policy.prefill_micro_batches,
            policy.part_bytes,
            layout=place,
            chunk_tokens=policy.chunk_tokens,
        )
        before = heads[-at_once] if len(heads) >= at_once else after
        heads.append(lower_pass(b, plan, {"A": shape}, {"A": before})["A"])
    ends = tuple(task for head in heads[-at_once:] for task in head) or after
    b.round_ends.append(ends)
    read = [*lengths, *others]
    ends = _append_transition(b, case, policy.gamma, policy.draft, read, ends, first, policy.chunk_tokens)
    b.round_ends.append(ends)
    return ends


def steady_round(policy: Policy) -> tuple[int, int]:
    """How many rounds to lower so that one shows the steady state, and which: it begins where the one before it ends.
    On one device it is the second of two. Stages work on several rounds at once: there the pipeline takes longer to
    fill, and a round without another one behind it would show how it drains."""
    return (2, 1) if policy.stages == 1 else (4, 2)


def lower_rounds(case: Case, decision: Decision, shape: RoundShape, rounds: int) -> Graph:
    """`rounds` consecutive decode rounds of the same shape. Weights are prefetched across their boundaries: the first
    rounds show how the steady state is reached (see `steady_round`)."""
    b, state = builder(decision), RoundState({}, {})
    for number in range(rounds):
        append_round(b, case, decision, shape, number, state)
    return b.graph()


def lower_prefill(case: Case, decision: Decision, lengths: Sequence[float]) -> Graph:
    """Prompts of the given `lengths`: sweeps over the target's layers, then the draft's own prefill."""
    b = builder(decision)
    append_prefill(b, case, decision, lengths, ())
    return b.graph()


def lower_transition(
    case: Case, gamma: int, draft: DraftPolicy, lengths: Sequence[float], chunk_tokens: int = CHUNK_TOKENS
) -> Graph:
    """Only the draft's part of a prefill: load its weights if they had to wait, and fill its KV."""
    b = Builder(ring_slots=0)
    b.round_ends.append(_append_transition(b, case, gamma, draft, lengths, (), 0, chunk_tokens))
    return b.graph()


def _append_transition(
    b: Builder,
    case: Case,
    gamma: int,
    policy: DraftPolicy | None,
    lengths: Sequence[float],
    after: Deps,
    number: int,
    chunk_tokens: int,
) -> Deps:
    draft = case.draft
    if gamma == 0 or policy is None or draft is None:
        return after
    gpu = case.machine.gpu is not None
    prefix = f"transition.{number}/A/draft"
    ready = after
    if policy.waits:
        weights = (cost.copy(draft.weight_bytes),)
        way = ("h2d", "load") if policy.processor == "gpu" else ("disk", "read")
        ready = (b.add(f"{prefix}/load", *way, weights, after),)
    if policy.kv == "none":
        return ready
    count = micro_batches(policy, len(lengths))
    whole = prefill_shape(lengths, draft.sliding_window)
    # Products of `DRAFT_TOKENS` rows are as quick as larger ones; in smaller chunks each reads all weights.
    at_once = prompt_tokens_at_once(chunk_tokens)
    chunks = math.ceil(whole.tokens / count / at_once) if at_once < DRAFT_TOKENS else 1
    work = tuple(cost.repeat(one, chunks) for one in cost.whole_pass(draft, whole.split(count * max(1, chunks))))
    kv_out = (cost.copy(draft.layers * cost.kv_bytes(draft, whole.tokens / count)),)
    streamed = gpu and policy.processor == "gpu" and policy.kv == "ram"
    ends = []
    for micro in range(count):
        tag = f"#{micro}" if count > 1 else ""
        free, slot = (b.draft_ring.free(), b.draft_ring.slot) if streamed else ((), None)
        done = b.add(f"{prefix}/prefill{tag}", draft_stream(policy), "draft", work, ready + free, slot)
        if streamed:
            done = b.add(f"{prefix}/kv_out{tag}", "d2h", "kv", kv_out, (done,))
            b.draft_ring.used_by((done,))
        ends.append(done)
    return tuple(ends)
