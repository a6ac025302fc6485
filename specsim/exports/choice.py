"""How many sequences an engine is asked to hold: what it is predicted to be fastest with, of what fits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil
from typing import Final, TypeVar

from specsim.answer import Plan
from specsim.case import Case
from specsim.errors import InfeasibleError
from specsim.memory import CHUNK_TOKENS, kv_positions
from specsim.systems.layers import cache_bytes
from specsim.systems.outcome import Outcome
from specsim.systems.policies import padded_shape
from specsim.systems.system import Job, Policy
from specsim.units import show

T = TypeVar("T")

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


def fastest(tries: Iterable[tuple[Outcome, T]], engine: str, case: Case) -> tuple[Outcome, T]:
    """The configuration that is predicted fastest. Raises InfeasibleError where none fits."""
    found = max(tries, key=lambda tried: tried[0].useful_per_s, default=None)
    if found is None:
        machine = case.machine
        room = show(machine.budgets()[machine.fast], "bytes")
        what = f"{engine} cannot hold one sequence of {case.target.name} in {room} of {machine.fast}"
        raise InfeasibleError(f"{what}, as it keeps caches there; give it more, or run the plan with specsim run")
    return found
