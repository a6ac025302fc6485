"""Speed with ever less memory to generate with: a plan for plenty of it, made smaller in steps."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.live import LiveBytes
from benchmarks.memory_runs import Pair, capped, planned, ram_items, run
from executor.job import Job
from specsim.added import generation_bytes
from specsim.answer import Plan
from specsim.cli.tables import render
from specsim.decision import CHUNK_TOKENS
from specsim.positions import held_positions
from specsim.units import show

#: room for all weights, and for all that generates, in weights
PLENTY: Final = 8.0
REQUESTS: Final = 48
IN_FLIGHT: Final = 16
GAMMA: Final = 3
#: tokens of a prompt; those that an answer may have, and has in the mean
PROMPT: Final = 32
LONGEST: Final = 256
MEAN: Final = 48
#: how the plan is made smaller: tokens of a sweep and a chunk, share of what all in flight may need of caches
SMALLER: Final = (
    (CHUNK_TOKENS, 1.0),
    *((128, share) for share in (1.0, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15)),
)
#: runs of each
REPEAT: Final = 3


@dataclass(frozen=True, slots=True)
class Point:
    """Of the curve. `tokens_per_s` are the median of all runs, `spread` has each; `generation` bytes are planned, and
    `measured`, of the fullest phase; `preemptions` in one run."""

    chunk_tokens: int
    kv_share: float
    kv_positions: int
    generation: int
    measured: int
    tokens_per_s: float
    spread: tuple[float, ...]
    preemptions: int


def curve(pair: Pair, folder: Path, machine: str) -> Iterator[Point]:
    """Speed with ever less memory to generate with, all in one process, each plan `REPEAT` times in turn."""
    weights = pair.target.architecture.model.weight_bytes + pair.draft.architecture.model.weight_bytes
    fix = {"strategy": "serial", "gamma": GAMMA, "batch": IN_FLIGHT, "refill": True}
    whole = planned(pair, folder, machine, PLENTY * weights, PROMPT, LONGEST, REQUESTS, **fix)
    eos = ends(outputs(run(pair, whole, PROMPT, LONGEST, requests=REQUESTS)), MEAN)
    plans = {how: smaller(whole, *how) for how in SMALLER}
    rates: dict[tuple[int, float], list[float]] = {how: [] for how in SMALLER}
    looks: dict[tuple[int, float], tuple[int, int]] = {}  # measured bytes, preemptions
    given = None
    for number in range(REPEAT + 1):
        for how, plan in plans.items():
            live = LiveBytes() if not number else None  # the first time is to look at
            if live is None:
                job = run(pair, plan, PROMPT, LONGEST, requests=REQUESTS, eos=eos)
                rates[how].append(job.batches.useful_tokens / sum(job.seconds.values()))
                print(f"{how}: {rates[how][-1]:.1f} tokens/s", file=sys.stderr)
            else:
                with live.watching():
                    job = run(pair, plan, PROMPT, LONGEST, live, REQUESTS, eos)
                looks[how] = (measured_generation(plan, live), job.batches.preemptions)
            found = outputs(job)
            given = given or found
            assert found == given, f"{how}: the tokens differ"
    for how, plan in plans.items():
        generation = int(max(map(generation_bytes, ram_items(plan).values())))
        held = int(held_positions(plan.case.workload, plan.decision.policy))
        some = tuple(sorted(rates[how]))
        measured, preemptions = looks[how]
        yield Point(*how, held, generation, measured, statistics.median(some), some, preemptions)


def outputs(job: Job) -> list[list[int]]:
    """Of all requests, in their order."""
    ended = [job.batches.finished.get() for _ in range(job.batches.done)]
    return [generation.output_ids for generation in sorted(ended, key=lambda g: g.request.index)]


def ends(outputs: Sequence[Sequence[int]], mean: float) -> frozenset[int]:
    """Tokens, drawn from those that come up, that end answers after so many in the mean."""
    seen = sorted({token for output in outputs for token in output})
    random.Random(0).shuffle(seen)
    eos: set[int] = set()
    for token in seen:
        eos.add(token)
        if statistics.fmean(_length(output, eos) for output in outputs) <= mean:
            break
    return frozenset(eos)


def _length(output: Sequence[int], eos: set[int]) -> int:
    return next((count for count, token in enumerate(output, 1) if token in eos), len(output))


def smaller(plan: Plan, chunk: int, share: float) -> Plan:
    """A plan whose sweeps and chunks have at most so many tokens, and its caches such a share of what they may need."""
    policy = plan.decision.policy
    sweep = min(policy.prefill_batch, max(1, chunk // PROMPT))
    policy = msgspec.structs.replace(policy, chunk_tokens=min(chunk, policy.chunk_tokens), prefill_batch=sweep)
    plan = replace(plan, decision=msgspec.structs.replace(plan.decision, policy=policy))
    return plan if share == 1 else capped(plan, share)


def measured_generation(plan: Plan, live: LiveBytes) -> int:
    """Bytes of the fullest phase without the weights, which are as planned."""
    planned = ram_items(plan)
    lasting = {phase: sum(items.values()) - generation_bytes(items) for phase, items in planned.items()}
    return int(max(live.peaks[phase][0] - lasting[phase] for phase in live.peaks if phase in lasting))


def curve_table(rows: list[Point]) -> str:
    most = rows[0]
    return render(
        ("chunks", "caches", "positions", "generation", "measured", "of all", "tokens/s", "of all", "preempted"),
        [
            (
                str(row.chunk_tokens),
                f"{row.kv_share:.0%}",
                str(row.kv_positions),
                show(row.generation, "bytes"),
                show(row.measured, "bytes"),
                f"{row.measured / most.measured:.0%}",
                f"{row.tokens_per_s:.1f}",
                f"{row.tokens_per_s / most.tokens_per_s:.0%}",
                str(row.preemptions),
            )
            for row in rows
        ],
    )
