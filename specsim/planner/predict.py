"""What a decision will do: the numbers of `predicted`, and the sentence about its bottleneck."""

from __future__ import annotations

from typing import Final

from specsim.acceptance import Acceptance, expected_tokens
from specsim.answer import Predicted
from specsim.case import Case
from specsim.decision import Decision, slots
from specsim.devices import bare
from specsim.memory import peak_items, totals
from specsim.schedule.lower import lower_rounds, steady_round
from specsim.schedule.round import RoundShape
from specsim.simulator.job import GRID, JobResult, RoundPricer, simulate_job
from specsim.simulator.pricing import simulate
from specsim.timeline import Timeline, resource, utilisation, waiting_on

#: the ends of a band need no finer grid of round shapes
BAND_GRID: Final = 1.15
#: what a person calls each stream
SAY: Final = {
    "gpu": "the GPU",
    "gpu.draft": "drafting on the GPU",
    "cpu": "the CPU",
    "cpu.draft": "drafting on the CPU",
    "h2d": "weights coming over the link",
    "h2d.kv": "caches coming over the link",
    "h2d.act": "activations coming over the link",
    "d2h": "copies back over the link",
    "disk": "the disk",
    "gpu.head": "logits on the GPU",
    "cpu.head": "logits on the CPU",
    "peer": "transfers between devices",
}


def mid_job_shape(case: Case, decision: Decision) -> RoundShape:
    """A round with every place taken, or as many as the caches have room for, half way through the output."""
    policy = decision.policy
    context = case.workload.prompt_tokens_mean + case.workload.output_tokens / 2
    rows = min(policy.in_flight, case.workload.requests)
    if policy.kv_positions is not None:
        rows = max(1, min(rows, int(policy.kv_positions / (context + 1 + policy.gamma))))
    return RoundShape(float(rows), context)


def round_timeline(case: Case, decision: Decision, shape: RoundShape | None = None) -> Timeline:
    """One round in the steady state, from the end of the one before it to its own end."""
    rounds, steady = steady_round(decision.policy)
    graph = lower_rounds(case, decision, shape or mid_job_shape(case, decision), rounds)
    timeline = simulate(graph, case.machine)
    ended = [max(timeline.spans[task].end for task in ends) for ends in graph.round_ends]
    return timeline.window(ended[steady - 1], ended[steady]).from_zero()


def predict(case: Case, decision: Decision, bound: float, *, job: JobResult | None = None) -> Predicted:
    """Simulate the whole job and one round of it. `bound` is the roofline's tokens per second."""
    job = job or simulate_job(case, decision, grid=GRID)
    policy, passes = decision.policy, slots(decision.strategy, decision.policy)
    shape = mid_job_shape(case, decision)
    timeline = round_timeline(case, decision, shape)
    gained = expected_tokens(case.acceptance, policy.gamma) if case.acceptance and policy.gamma else 1.0
    slot = RoundPricer(case, decision).steady(shape) / passes
    peaks = totals(peak_items(case, decision))
    return Predicted(
        tokens_per_second=job.tokens_per_second,
        makespan_s=job.makespan_s,
        prefill_s=job.prefill_s,
        decode_s=job.decode_s,
        slot_s=slot,
        tokens_per_slot=gained * shape.rows / passes,
        utilisation={name: round(share, 4) for name, share in utilisation(timeline).items()},
        peak_bytes={p: {m: round(size) for m, size in memories.items()} for p, memories in peaks.items()},
        bottleneck=bottleneck(timeline, job),
        bound_tokens_per_second=max(bound, job.tokens_per_second),
    )


def bottleneck(timeline: Timeline, job: JobResult) -> str:
    """One sentence: what the critical path of a round waits for, and how much of the job is prefill."""
    waits: dict[str, float] = {}
    streams: dict[str, float] = {}
    for stream, share in waiting_on(timeline).items():  # like devices count as one
        name, kind = bare(resource(stream)), bare(stream)
        waits[name] = waits.get(name, 0.0) + share
        streams[kind] = streams.get(kind, 0.0) + share
    name = max(waits, key=lambda r: waits[r])
    most = max((s for s in streams if resource(s) == name), key=lambda s: streams[s])
    prefill = job.prefill_s / job.makespan_s
    return f"{waits[name]:.0%} of a round waits for {SAY.get(most, most)}; prefill is {prefill:.0%} of the job"


def band(case: Case, decision: Decision, low: float, high: float) -> dict[str, float]:
    """Tokens per second of the same decision at the ends of an assumed acceptance."""
    found = {}
    for alpha in (low, high):
        other = Acceptance.constant(alpha, "assumed", "end of the band")
        at = Case(case.machine, case.target, case.workload, case.draft, other)
        found[f"{alpha:g}"] = simulate_job(at, decision, grid=BAND_GRID).tokens_per_second
    return found
