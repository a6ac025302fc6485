"""The draft model at work: gamma steps for every micro-batch of sequences, its KV kept, streamed or made anew."""

from __future__ import annotations

import math

from specsim.cost import work as cost
from specsim.cost.shapes import PassShape, decode_shape, prefill_shape
from specsim.decision import DraftPolicy
from specsim.model import Model
from specsim.schedule.graph import Builder

Deps = tuple[int, ...]


def draft_stream(policy: DraftPolicy) -> str:
    return f"{policy.processor}.draft"


def micro_batches(policy: DraftPolicy, rows: float) -> int:
    return max(1, math.ceil(rows / policy.micro_batch))


def step_shape(draft: Model, policy: DraftPolicy, step: int, rows: float, context: float, joining: float) -> PassShape:
    """What step `step` computes for `rows` sequences. The first catches up: the whole context where the KV was not
    kept, and the prompts (`joining` tokens in all) of sequences that have just taken a freed place."""
    window = draft.sliding_window
    if step == 0 and policy.kv == "none":
        prompt = prefill_shape([context + 1], window)
        return PassShape(rows, rows * prompt.tokens, rows * prompt.attended, 0.0, rows)
    shape = decode_shape(rows, 1, context + step, window)
    if step == 0 and joining:
        return shape + PassShape(0.0, joining, joining * (context + 1) / 2, 0.0, 0.0)
    return shape


def lower_draft(
    b: Builder,
    draft: Model,
    policy: DraftPolicy,
    gamma: int,
    prefix: str,
    *,
    rows: float,
    context: float,
    joining: float,
    after: Deps,
    gpu: bool,
) -> Deps:
    """Append the drafting of one round for `rows` sequences; returns the last task of every micro-batch."""
    count = micro_batches(policy, rows)
    share = rows / count
    stream = draft_stream(policy)
    streamed = gpu and policy.processor == "gpu" and policy.kv == "ram"
    works = [
        cost.whole_pass(draft, step_shape(draft, policy, step, share, context, joining / count))
        for step in range(gamma)
    ]
    kv_in = (
        cost.copy(draft.layers * cost.kv_bytes(draft, decode_shape(share, 1, context, draft.sliding_window).cached)),
    )
    kv_out = (cost.copy(draft.layers * cost.kv_bytes(draft, share * gamma + joining / count)),)
    ends = []
    for micro in range(count):
        tag = f"#{micro}" if count > 1 else ""
        ready = after
        if streamed:
            free, slot = b.draft_ring.free(), b.draft_ring.slot
            ready = (*after, b.add(f"{prefix}/draft/kv_in{tag}", "h2d.kv", "kv", kv_in, free + after, slot))
        for step in range(gamma):
            ready = (b.add(f"{prefix}/S{step:02d}/forward{tag}", stream, "draft", works[step], ready),)
        if streamed:
            # Only then is the micro-batch done: what is rolled back after the verify pass has to be there by then.
            ready = (b.add(f"{prefix}/draft/kv_out{tag}", "d2h", "kv", kv_out, ready),)
            b.draft_ring.used_by(ready)
        ends.append(ready[0])
    return tuple(ends)
