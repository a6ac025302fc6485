"""What several systems have in common: jobs without a draft, what lies in VRAM, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from specsim.case import Case
from specsim.cost.shapes import PassShape, prefill_shape
from specsim.errors import InfeasibleError
from specsim.memory import workspaces
from specsim.systems.layers import Pass, cache_bytes
from specsim.systems.prompts import longest
from specsim.systems.simulate import phase_seconds, stage_graphs
from specsim.systems.system import Bytes, Job, Policy, Stage, decode
from specsim.units import show


def plain_job(case: Case, policy: Policy, prefill: Callable[[Pass], None], step: Callable[[Pass], None]) -> Job:
    """One prefill sweep of the whole batch, which gives the first token; then a step for every further one."""
    tokens = case.workload.output_tokens
    shape = padded_shape(policy.batch, policy.padded, case.target.sliding_window)
    stages = (
        Stage("prefill", 1.0, prefill, (shape,)),
        decode(case, tokens - 1.0, step, policy.batch, policy.padded + 1, policy.padded + tokens - 1),
    )
    all_tokens = policy.batch * policy.blocks * tokens
    return Job(stages, all_tokens, all_tokens)


def padded_shape(rows: float, length: float, window: int | None) -> PassShape:
    """Prefill of `rows` prompts, all padded to `length`."""
    one = prefill_shape([length], window)
    return PassShape(rows, rows * one.tokens, rows * one.attended, 0.0, rows)


def simple_policy(case: Case, batch: float, blocks: int = 1) -> Policy:
    """`batch` sequences, padded to the longest that so many are expected to hold."""
    return Policy(batch, longest(case.workload, batch * blocks), blocks)


def in_vram(case: Case, policy: Policy, resident: float, *, cache: bool = True) -> Bytes:
    """`resident` bytes of weights and buffers, the cache of a whole block if `cache`, and the activations of a prefill
    sweep in VRAM; all weights, and else the cache, in RAM."""
    rows = policy.prefill_batch or policy.batch
    space = sum(workspaces(case.target, rows * policy.padded, 1, rows).values())
    positions = policy.batch * policy.blocks * (policy.padded + case.workload.output_tokens)
    kv = cache_bytes(case.target, positions)
    vram = resident + space + (kv if cache else 0.0)
    return {"vram": vram, "ram": case.target.weight_bytes + (0.0 if cache else kv)}


def resident(case: Case, policy: Policy, buffers: float, *, cache: bool = False) -> float:
    """Share of the weights for which VRAM has room beside `buffers`, activations and, if `cache`, the cache."""
    room = case.machine.vram_budget_bytes - in_vram(case, policy, buffers, cache=cache)["vram"]
    return min(1.0, max(0.0, room / case.target.weight_bytes))


def fastest(
    case: Case,
    job: Callable[[Case, Policy], Job],
    memory: Callable[[Case, Policy], Bytes],
    policies: Sequence[Policy],
) -> Policy:
    """The policy that reports most tokens per second of those that fit. Raises InfeasibleError where none does."""
    budgets, requests = case.machine.budgets(), case.workload.requests
    speeds: dict[Policy, float] = {}
    for policy in policies:
        if policy.batch * policy.blocks <= requests and not excess(memory(case, policy), budgets):
            asked = job(case, policy)
            graphs = [stage_graphs(case, stage) for stage in asked.stages]
            speeds[policy] = asked.useful / sum(phase_seconds(asked, graphs, case.machine).values())
    if not speeds:
        raise InfeasibleError(f"none of {len(policies)} policies fits {case.machine.name}; give it more memory")
    return max(speeds, key=lambda policy: speeds[policy])


def largest(
    case: Case, memory: Callable[[Case, Policy], Bytes], make: Callable[[Case, int], Policy] = simple_policy
) -> Policy:
    """The policy of the largest batch that fits, up to all requests: what a user finds who raises it until memory runs
    out. Raises InfeasibleError, saying what is short, where one sequence does not fit."""
    budgets = case.machine.budgets()
    short = excess(memory(case, make(case, 1)), budgets)
    if short:
        raise InfeasibleError(f"one sequence needs {short}")
    low, high = 1, case.workload.requests
    while low < high:  # the largest batch lies in low..high
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if excess(memory(case, make(case, middle)), budgets) else (middle, high)
    return make(case, low)


def excess(sizes: Bytes, budgets: Mapping[str, float]) -> str:
    """The worst shortage of `budgets` in words, or "" if everything fits."""
    missing, name = max((size - budgets.get(name, 0.0), name) for name, size in sizes.items())
    return f"{show(missing, 'bytes')} more {name} than there is" if missing > 0 else ""
