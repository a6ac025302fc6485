"""How many sequences an engine is asked to hold: what it is predicted to be fastest with, of what fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Final, Generic, TypeVar

from specsim.answer import Plan
from specsim.case import Case
from specsim.decision import CHUNK_TOKENS
from specsim.errors import InfeasibleError
from specsim.positions import kv_positions
from specsim.systems.layers import cache_bytes
from specsim.systems.outcome import Outcome, run
from specsim.systems.policies import excess, padded_shape
from specsim.systems.system import Bytes, Job, Policy, System

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Try(Generic[T]):
    """A configuration that may fit: `choice` in an engine's own terms, and what specsim models it by. It needs so many
    bytes by memory, and there is `room` for so many."""

    choice: T
    case: Case
    system: System
    policy: Policy
    needed: Bytes
    room: Bytes


#: tokens that n-gram drafting looks up: as many as the executor's
NGRAM_TOKENS: Final = 4


def sequences(most: int) -> Iterator[int]:
    """`most`, and its halves down to 1."""
    while most:
        yield most
        most //= 2


def in_flight(plan: Plan) -> int:
    """Sequences that the plan decodes at a time: an engine is asked for no more."""
    return min(plan.decision.policy.in_flight, plan.case.workload.requests)


def caches(case: Case, rows: int, gamma: int = 0) -> float:
    """Bytes of the target's caches of any `rows` requests at once: those of the longest."""
    return cache_bytes(case.target, kv_positions(case.workload, rows, gamma))


def pass_tokens(case: Case, rows: int) -> int:
    """Tokens of a pass that prefills: of all `rows` prompts, but no more than the memory model counts workspaces for,
    and no fewer than the longest prompt has."""
    work = case.workload
    return max(min(ceil(rows * work.prompt_tokens_mean), CHUNK_TOKENS), work.prompt_tokens_max)


def swept(case: Case, policy: Policy, job: Job) -> Job:
    """`job` with its prefill in passes of `pass_tokens`, each of which goes through all weights."""
    prefill, *rest = job.stages
    passes = ceil(policy.batch * policy.padded / pass_tokens(case, int(policy.batch)))
    shape = padded_shape(policy.batch / passes, policy.padded, case.target.sliding_window)
    return replace(job, stages=(replace(prefill, times=float(passes), shapes=(shape,)), *rest))


def fastest(tries: Iterable[Try[T]], engine: str, case: Case) -> tuple[Outcome, T]:
    """The configuration that is predicted fastest, of those that fit. Raises InfeasibleError where none does, with
    what the last one is short of: `tries` go from many sequences to one."""
    short, found = "", []
    for tried in tries:
        short = excess(tried.needed, tried.room)
        if not short:
            found.append((run(tried.case, tried.system, tried.policy), tried.choice))
    if not found:
        what = f"{engine} cannot hold one sequence of {case.target.name}: it needs {short} for it"
        raise InfeasibleError(f"{what}; give it more, or run the plan with specsim run")
    return max(found, key=lambda tried: tried[0].useful_per_s)
