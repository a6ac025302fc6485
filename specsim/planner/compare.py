"""Every way to run one job on one machine, side by side: our plan, the best of each other kind, published systems.

All meet the same machine, cost model and simulator, and all are rated by useful tokens. A published system runs under
the policy that its own search, or its users' habit, chooses there; what it does not reach of the machine in practice
(its own overheads, unpinned copies that its file does not mention) is not held against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specsim.acceptance import expected_tokens
from specsim.case import Case
from specsim.decision import slots
from specsim.devices import bare
from specsim.errors import InfeasibleError
from specsim.memory import peak_items, totals
from specsim.planner.candidates import Fixed
from specsim.planner.infeasible import explain_infeasible
from specsim.planner.layouts import search_all
from specsim.planner.predict import round_timeline
from specsim.planner.search import Found, Progress
from specsim.systems.outcome import Outcome, decoding, run
from specsim.systems.table import SYSTEMS
from specsim.timeline import Timeline, resource, utilisation, waiting_on

#: our plan's name in the table
OURS = "specsim"


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to run the job. `tokens_per_second` counts useful tokens; `latency_s` is the mean time from one of a
    sequence's tokens to its next while all places are taken; `peak_bytes` by memory. A pass of the target in decode
    takes `pass_s` and brings `tokens_per_pass`; `busy_s` of it each resource is busy, and for the share `waits` of it
    the resource `waits_for` is what the others wait for. `prefill_s` is per useful token."""

    name: str
    plan: str
    ours: bool
    tokens_per_second: float
    latency_s: float
    peak_bytes: Mapping[str, float]
    waits_for: str
    waits: float
    prefill_s: float
    pass_s: float
    tokens_per_pass: float
    busy_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All ways that fit, the fastest first, and why each other one was left out."""

    case: Case
    entries: tuple[Entry, ...]
    left_out: Mapping[str, str]


def compare_all(case: Case, progress: Progress | None = None) -> Comparison:
    """Our best plans of every kind and every published system. Raises InfeasibleError where not even ours fits."""
    found = search_all(case, Fixed(), progress).found
    if not found:
        raise explain_infeasible(case, Fixed())
    kinds: dict[tuple[str, bool], Found] = {}
    for plan in found:
        kinds.setdefault((plan.decision.strategy, plan.decision.policy.gamma > 0), plan)
    best, *others = kinds.values()
    entries = [_ours(case, best, OURS), *(_ours(case, plan, plan.decision.strategy) for plan in others)]
    left_out = {}
    for name, system in SYSTEMS.items():
        if progress is not None:
            progress(f"running {system.title}")
        if system.drafts and (case.draft is None or case.acceptance is None):
            left_out[name] = "needs a draft"
            continue
        try:
            entries.append(_published(run(case, system)))
        except InfeasibleError as error:
            left_out[name] = str(error)
    return Comparison(case, tuple(sorted(entries, key=lambda e: -e.tokens_per_second)), left_out)


def _ours(case: Case, found: Found, name: str) -> Entry:
    job, policy = found.job, found.decision.policy
    timeline = round_timeline(case, found.decision)
    gained = expected_tokens(case.acceptance, policy.gamma) if case.acceptance and policy.gamma else 1.0
    peaks = totals(peak_items(case, found.decision)).values()
    return _entry(
        name,
        found.candidate.label,
        timeline,
        ours=True,
        tokens=float(job.tokens),
        requests=float(case.workload.requests),
        passes=float(len(job.rounds) * slots(found.decision.strategy, policy)),
        prefill_s=job.prefill_s,
        decode_s=job.decode_s,
        latency_s=timeline.makespan / gained,
        peak_bytes={memory: max(peak[memory] for peak in peaks) for memory in case.machine.budgets()},
    )


def _published(outcome: Outcome) -> Entry:
    job, gamma = outcome.job, outcome.policy.gamma
    requests = job.useful / outcome.case.workload.output_tokens
    return _entry(
        outcome.system.name,
        f"gamma {gamma}, {requests:.0f} in flight" if gamma else f"no speculation, {requests:.0f} in flight",
        decoding(outcome),
        ours=False,
        tokens=job.useful,
        requests=requests,
        passes=sum(stage.times for stage in job.stages if stage.phase == "decode"),
        prefill_s=outcome.prefill_s,
        decode_s=outcome.decode_s,
        latency_s=outcome.latency_s,
        peak_bytes=outcome.peak_bytes,
    )


def _entry(
    name: str,
    plan: str,
    timeline: Timeline,
    *,
    ours: bool,
    tokens: float,
    requests: float,
    passes: float,
    prefill_s: float,
    decode_s: float,
    latency_s: float,
    peak_bytes: Mapping[str, float],
) -> Entry:
    """`timeline` is a pass in mid-job; every request has its first token from its prefill."""
    waits: dict[str, float] = {}
    for stream, share in waiting_on(timeline).items():
        name_of = bare(resource(stream))
        waits[name_of] = waits.get(name_of, 0.0) + share
    most, pass_s = max(waits, key=waits.__getitem__), decode_s / passes
    return Entry(
        name,
        plan,
        ours,
        tokens / (prefill_s + decode_s),
        latency_s,
        peak_bytes,
        most,
        waits[most],
        prefill_s / tokens,
        pass_s,
        (tokens - requests) / passes,
        {name: share * pass_s for name, share in utilisation(timeline).items()},
    )
