"""What a plan does that other engines may not do: only what this plan really has is ever reported lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from specsim.answer import Plan
from specsim.decision import LayerPlacement, homes_of
from specsim.exports.export import Loss

#: how each schedule hides its drafting
_SCHEDULES = {
    "merged": "merged: two batches of one pass share every load of weights",
    "interleaved": "interleaved: one batch is verified while the other is drafted for",
}


def losses(plan: Plan, here: Mapping[str, str]) -> tuple[Loss, ...]:
    """What of `plan` an engine lacks. `here` says, for each feature that it lacks, what it does instead."""
    return tuple(Loss(what, text, here[what]) for what, text in features(plan) if what in here)


def features(plan: Plan) -> Iterator[tuple[str, str]]:
    """The features that a plan uses, each with how it uses it."""
    decision, policy, gpu = plan.decision, plan.decision.policy, plan.case.machine.gpu is not None
    layers = decision.layers
    if policy.stages * policy.tensor > 1:
        yield "devices", f"{policy.stages} stages of {policy.tensor} devices"
    if decision.strategy in _SCHEDULES:
        yield "schedule", _SCHEDULES[decision.strategy]
    if any(homes_of(place) - {"vram", "ram"} for place in layers):
        yield "loading", f"a ring of {policy.ring_slots} slots: weights come while others compute"
    if policy.expert_fetch == "routed":
        yield "fetching", "only experts that the router asks for are loaded"
    if any("disk" in homes_of(place) for place in layers):
        yield (
            "disk",
            f"{_count(layers, lambda place: 'disk' in homes_of(place))} read weights from disk, past the cache",
        )
    if gpu:
        yield from _beside_a_gpu(layers)
    if any(len(set(place.ffn)) > 1 for place in layers):
        yield "placement", f"{_count(layers, lambda place: len(set(place.ffn)) > 1)} have FFN parts in several places"
    yield "batch", f"{policy.in_flight} sequences in flight"
    if policy.prefill_batch < policy.in_flight or policy.prefill_micro_batches > 1:
        yield "prefill", f"{policy.prefill_batch} prompts a sweep, attention in {policy.prefill_micro_batches} parts"
    if policy.refill:
        yield "refill", "a waiting request takes each freed place"
    if decision.tails:
        yield "tails", f"from {decision.tails[0].rows} sequences left, other processors where that is faster"
    if policy.gamma:
        yield (
            "speculation",
            f"gamma {policy.gamma}, drafted by {plan.case.draft.name if plan.case.draft else 'n-grams'}",
        )
    if policy.draft is not None:
        kv = "made anew" if policy.draft.kv == "none" else f"in {policy.draft.kv}"
        yield "draft", f"on the {policy.draft.processor}, {policy.draft.micro_batch} at a time, KV {kv}"
    yield "exactness", "with specsim run, tokens depend on neither batch, placement nor draft"


def _beside_a_gpu(layers: tuple[LayerPlacement, ...]) -> Iterator[tuple[str, str]]:
    """What the CPU and the RAM do for the GPU."""
    if any(place.attention.processor == "cpu" for place in layers):
        yield "attention", f"{_count(layers, lambda place: place.attention.processor == 'cpu')} attend on the CPU"
    if any(place.attention.kv == "ram" for place in layers):
        yield "KV", f"{_count(layers, lambda place: place.attention.kv == 'ram')} keep their caches in RAM"
    parts = [part for place in layers for part in place.ffn]
    cpu = sum(part.processor == "cpu" for part in parts)
    if cpu:
        yield "FFN", f"{cpu} of {len(parts)} parts are computed by the CPU, beside the GPU"
    if any("pinned" in homes_of(place) for place in layers):
        yield "pinning", "weights in page-locked RAM"


def _count(layers: tuple[LayerPlacement, ...], which: Callable[[LayerPlacement], bool]) -> str:
    return f"{sum(map(which, layers))} of {len(layers)} layers"
