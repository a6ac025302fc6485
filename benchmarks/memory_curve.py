"""Speed with ever less memory to generate with: a plan for plenty of it, made smaller in steps."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.live import LiveBytes
from benchmarks.memory_runs import Pair, capped, planned, ram_items, run
from specsim.added import generation_bytes
from specsim.answer import Plan
from specsim.cli.tables import render
from specsim.decision import LEAST_CHUNK
from specsim.positions import held_positions, sweep_tokens
from specsim.units import show

#: room for all weights, and for all that generates, in weights
PLENTY: Final = 8.0
#: prompt and output tokens
LENGTH: Final = (64, 96)
#: of the curve: requests; how the plan is made smaller (parts of a sweep and a pass, share of the sequences in flight,
#: share of what their caches may need); and runs of each
CURVE_REQUESTS: Final = 24
SMALLER: Final = (
    (1, 1, 1),
    (2, 1, 1),
    (4, 1, 1),
    (8, 1, 1),
    (8, 1, 0.8),
    (8, 1, 0.7),
    (8, 1, 0.6),
    (8, 1, 0.45),
    (8, 1, 0.35),
    (8, 3 / 4, 1),
    (8, 2 / 3, 1),
    (8, 1 / 2, 1),
    (8, 1 / 3, 1),
    (8, 1 / 4, 1),
)
REPEAT: Final = 3


@dataclass(frozen=True, slots=True)
class Point:
    """Of the curve: `parts` that sweeps and passes are cut in. `tokens_per_s` are the median of all runs, `spread` has
    each; `generation` bytes are planned, and `measured`, of the fullest phase."""

    parts: int
    in_flight: int
    kv_share: float
    kv_positions: int
    generation: int
    measured: int
    tokens_per_s: float
    spread: tuple[float, ...]
    preemptions: int


def curve(pair: Pair, folder: Path, machine: str) -> Iterator[Point]:
    """Speed with ever less memory to generate with, all in one process, each plan `REPEAT` times in turn."""
    prompt, output = LENGTH
    weights = pair.target.architecture.model.weight_bytes + pair.draft.architecture.model.weight_bytes
    whole = planned(pair, folder, machine, PLENTY * weights, prompt, output, gamma=3, requests=CURVE_REQUESTS)
    plans = {how: smaller(whole, *how) for how in SMALLER}
    rates: dict[tuple[int, float, float], list[float]] = {how: [] for how in SMALLER}
    jobs: dict[tuple[int, float, float], tuple[int, int]] = {}  # measured bytes, preemptions
    for number in range(REPEAT + 1):
        for how, plan in plans.items():
            if not number:  # the first is for the library's trials, and to look at
                live = LiveBytes()
                with live.watching():
                    job = run(pair, plan, prompt, output, live, CURVE_REQUESTS)
                jobs[how] = (measured_generation(plan, live), job.batches.preemptions)
                continue
            job = run(pair, plan, prompt, output, requests=CURVE_REQUESTS)
            rates[how].append(job.batches.useful_tokens / sum(job.seconds.values()))
            print(f"{how}: {rates[how][-1]:.1f} tokens/s", file=sys.stderr)
    for how, plan in plans.items():
        parts, _, share = how
        policy = plan.decision.policy
        generation = int(max(map(generation_bytes, ram_items(plan).values())))
        held = int(held_positions(plan.case.workload, policy))
        measured, preemptions = jobs[how]
        found = tuple(sorted(rates[how]))
        speed = statistics.median(found)
        yield Point(parts, policy.in_flight, share, held, generation, measured, speed, found, preemptions)


def smaller(plan: Plan, parts: int, in_flight: float, kv: float) -> Plan:
    """A plan with its sweeps, passes and chunks cut in so many parts, with such shares of its sequences in flight and
    of the positions that their caches may need."""
    policy = plan.decision.policy
    if parts > 1:
        batch = math.ceil(policy.batch * in_flight)
        chunk = int(sweep_tokens(plan.case.workload, policy)) // parts
        draft = policy.draft
        if draft is not None:
            draft = msgspec.structs.replace(draft, micro_batch=min(math.ceil(batch / parts), draft.micro_batch))
        policy = msgspec.structs.replace(
            policy,
            batch=batch,
            prefill_batch=max(1, policy.prefill_batch // parts),
            prefill_micro_batches=1,
            verify_micro_batches=min(parts, batch),
            chunk_tokens=max(LEAST_CHUNK, min(chunk, policy.chunk_tokens)),
            draft=draft,
        )
    plan = replace(plan, decision=msgspec.structs.replace(plan.decision, policy=policy))
    return plan if kv == 1 else capped(plan, kv)


def measured_generation(plan: Plan, live: LiveBytes) -> int:
    """Bytes of the fullest phase without the weights, which are as planned."""
    planned = ram_items(plan)
    lasting = {phase: sum(items.values()) - generation_bytes(items) for phase, items in planned.items()}
    return int(max(live.peaks[phase][0] - lasting[phase] for phase in live.peaks if phase in lasting))


def curve_table(rows: list[Point]) -> str:
    most = rows[0]
    return render(
        ("parts", "in flight", "kv", "generation", "measured", "of all", "tokens/s", "of all", "preempted"),
        [
            (
                str(row.parts),
                str(row.in_flight),
                f"{row.kv_share:.0%}",
                show(row.generation, "bytes"),
                show(row.measured, "bytes"),
                f"{row.generation / most.generation:.0%}",
                f"{row.tokens_per_s:.1f}",
                f"{row.tokens_per_s / most.tokens_per_s:.0%}",
                str(row.preemptions),
            )
            for row in rows
        ],
    )
