"""The discrete policies that a search looks at, before placement: strategy, gamma, batch, ring, fetching of experts.

The grids are the same for every machine, so that a better machine never sees fewer candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from specsim.case import Case
from specsim.cost.work import distinct_experts, kv_bytes
from specsim.decision import BATCHES, CHUNK_TOKENS, LEAST_CHUNK, LETTERS, Policy, StrategyName
from specsim.errors import InputError, UnknownNameError
from specsim.memory import capped_positions, workspaces
from specsim.partition import PART_BYTES
from specsim.positions import kv_positions
from specsim.schedule.lower import STRATEGIES
from specsim.stages import stages
from specsim.units import KiB, MiB
from specsim.workload import prompt_lengths

MOST_GAMMA: Final = 64
GAMMAS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
IN_FLIGHT: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
RING_SLOTS: Final = (3, 2, 6)
#: KV of a layer that is streamed through VRAM goes in pieces of at most this size
KV_PIECE: Final = 512 * MiB
#: prompt tokens of one micro-batch of prefill attention
PREFILL_TOKENS: Final = 16384
#: share of the fast memory that such a piece, and what a micro-batch of attention computes with, may take each: where
#: memory is short, more micro-batches cost less time than what they leave free saves
MICRO_SHARE: Final = 1 / 32
#: share of the fast memory that the activations of a prefill sweep may take
SWEEP_SHARE: Final = 0.25
#: the most that a prefill sweep is cut further. Sweeps that compute for longer than weights stream cost nothing, and
#: what smaller activations leave free holds weights in every round; where that is, the search finds out
MOST_CUTS: Final = 16
#: tokens that FFNs compute at once: where memory is tight also fewer, as all chunks pass while the weights are there
CHUNKS: Final = (CHUNK_TOKENS, 2048, 512, 128, LEAST_CHUNK)
#: share of the fast memory from which on what FFNs and head compute with is too much to be overlooked
TIGHT: Final = 1 / 32
#: share of the fast memory that one part of an FFN may take: a ring of three of them takes less than a twentieth, and
#: the memory is left for weights that stay, which no pass has to wait for
PART_SHARE: Final = 1 / 64
#: copies of smaller parts would cost more in latency than in bandwidth
LEAST_PART_BYTES: Final = 64 * KiB
#: routed fetching is looked at where it would spare at least this share of the experts
ROUTED_SPARES: Final = 0.03
#: values that can be fixed only where there is a GPU
ON_GPU: Final = {"attention": ("gpu", "cpu"), "kv": ("vram",), "ffn": ("gpu",), "draft_kv": ("vram",)}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy whose draft and placement are still open. `cuts` says into how many each of the largest prefill sweeps
    that its share of the memory allows is cut; less than 1, and it takes more than its share."""

    strategy: StrategyName
    policy: Policy
    cuts: float = 1

    @property
    def label(self) -> str:
        kind = (
            f"{self.strategy}, gamma {self.policy.gamma}" if self.policy.gamma else f"{self.strategy}, no speculation"
        )
        fetch = ", experts on demand" if self.policy.expert_fetch == "routed" else ""
        split = f", {self.policy.stages} stages of {self.policy.tensor}" if self.policy.devices > 1 else ""
        return f"{kind}, {self.policy.batches} x {self.policy.batch}{fetch}{split}"


@dataclass(frozen=True, slots=True)
class Fixed:
    """What the user has decided already; None leaves a field to the planner."""

    strategy: str | None = None
    gamma: int | None = None
    batch: int | None = None
    ring_slots: int | None = None
    expert_fetch: str | None = None
    refill: bool | None = None
    prefill_batch: int | None = None
    attention: str | None = None  # gpu, cpu, cpu+projections
    kv: str | None = None  # vram, ram: where every cache of the target lives
    ffn: str | None = None  # gpu, cpu: where all of it is computed
    placement: str | None = None  # layers: each layer's weights in one memory
    kv_bytes: float | None = None  # the most that all caches take, the draft's with the target's
    draft_kv: str | None = None  # vram, ram, none
    draft_batch: int | None = None
    stages: int | None = None
    tensor: int | None = None
    batches: int | None = None  # in flight over the stages of a pipeline
    chunk_tokens: int | None = None

    def __post_init__(self) -> None:
        _one_of("strategy", self.strategy, tuple(STRATEGIES))
        _one_of("expert_fetch", self.expert_fetch, ("all", "routed"))
        _one_of("attention", self.attention, ("gpu", "cpu", "cpu+projections"))
        _one_of("kv", self.kv, ("vram", "ram"))
        _one_of("ffn", self.ffn, ("gpu", "cpu"))
        _one_of("placement", self.placement, ("layers",))
        _one_of("draft_kv", self.draft_kv, ("vram", "ram", "none"))
        least_of = {"gamma": 0, "batch": 1, "ring_slots": 0, "prefill_batch": 1, "draft_batch": 1}
        least_of["chunk_tokens"] = LEAST_CHUNK
        for name, least in (least_of | {"stages": 1, "tensor": 1, "batches": 2}).items():
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or number < least):
                hint = f"give a whole number from {least}"
                raise InputError(f"{name} is {number!r}", where=f"--fix {name}", hint=hint)
        if self.kv_bytes is not None and not isinstance(self.kv_bytes, int | float):
            raise InputError(f"kv_bytes is {self.kv_bytes!r}", where="--fix kv_bytes", hint="say it with --kv")
        if self.kv == "vram" and (self.attention or "gpu") != "gpu":
            what = f"attention {self.attention!r} meets no cache in VRAM"
            raise InputError(what, where="--fix kv", hint="fix one of the two, or kv=ram")
        if (self.gamma or 0) > MOST_GAMMA:
            raise InputError(f"gamma is {self.gamma}", where="--fix gamma", hint=f"give at most {MOST_GAMMA}")


def check(case: Case, fixed: Fixed) -> None:
    """Raise InputError for what is fixed to something that the case does not have."""
    if fixed.gamma and case.acceptance is None:
        raise InputError(f"gamma {fixed.gamma} needs a draft", where="--fix gamma", hint="name a --draft")
    used = (fixed.stages or 1) * (fixed.tensor or 1)
    if used > case.machine.devices:
        what = f"stages x tensor is {used}"
        raise InputError(what, where="--fix", hint=f"{case.machine.name} has {case.machine.devices} devices")
    if fixed.batches is not None and case.machine.devices == 1:
        raise InputError("batches are fixed for one device", where="--fix batches", hint="a strategy says how many")
    _kv_positions(case, fixed)
    if case.machine.gpu is None:
        for name, needs in ON_GPU.items():
            if getattr(fixed, name) in needs:
                what = f"{name} {getattr(fixed, name)!r} needs a GPU, and {case.machine.name} has none"
                raise InputError(what, where=f"--fix {name}", hint="leave it out")


def candidates(case: Case, fixed: Fixed) -> Iterator[Candidate]:
    """Every policy of the grids that `fixed` allows, plain decoding included."""
    requests = case.workload.requests
    # A request for one token gets it from its prefill: there is nothing to speculate about.
    gammas = (0, *GAMMAS) if case.acceptance is not None and case.workload.output_tokens > 1 else (0,)
    for strategy in strategies(case, fixed):
        batches = most_batches(strategy, fixed)
        sizes = batch_sizes(requests, batches)
        for batch in sizes if fixed.batch is None else (fixed.batch,):
            for gamma in gammas if fixed.gamma is None else (fixed.gamma,):
                for routed in _fetches(case, batch * (1 if strategy == "interleaved" else batches), gamma, fixed):
                    yield make(case, strategy, gamma, batch, RING_SLOTS[0], routed, fixed)  # type: ignore[arg-type]


def strategies(case: Case, fixed: Fixed) -> tuple[str, ...]:
    """Those that what is fixed leaves. Raises InputError where there is none."""
    able = tuple(STRATEGIES) if fixed.strategy is None else (fixed.strategy,)
    able = tuple(s for s in able if has_batches(s, fixed))
    if not able:
        which = fixed.strategy or "no strategy"
        what = f"{fixed.batches} batches in flight are not what {which} has over {fixed.stages or 1} stages"
        hint = f"interleaved over several stages has 2 to {len(LETTERS)}"
        raise InputError(what, where="--fix batches", hint=hint)
    requests, batch = case.workload.requests, fixed.batch or 1
    able = tuple(s for s in able if fixed.batch is None or (batch - 1) * most_batches(s, fixed) < requests)
    if not able:
        what = f"a batch of {fixed.batch} is more than the {requests} requests fill"
        raise InputError(what, where="--fix batch", hint="make it smaller, or ask for more --requests")
    return able


def has_batches(strategy: str, fixed: Fixed) -> bool:
    """Whether a strategy has as many batches in flight as are fixed."""
    return fixed.batches in (None, most_batches(strategy, fixed))


def like(fixed: Fixed, c: Candidate) -> Fixed:
    """What is fixed, and that it is on as many devices as a candidate."""
    return replace(fixed, stages=c.policy.stages, tensor=c.policy.tensor)


def most_batches(strategy: str, fixed: Fixed) -> int:
    """Batches in flight: over several stages one for each, and one that is drafted for meanwhile."""
    stages = fixed.stages or 1
    if strategy != "interleaved" or stages == 1:
        return BATCHES[strategy]
    return min(fixed.batches or stages + 1, len(LETTERS))


def batch_sizes(requests: int, batches: int) -> tuple[int, ...]:
    """Sequences in each of `batches` in flight, in rising order."""
    totals = {n for n in IN_FLIGHT if n < requests} | {math.ceil(requests / n) for n in (1, 2, 3, 4)}
    return tuple(sorted({math.ceil(total / batches) for total in totals if total >= batches}))


def least_demanding(case: Case, fixed: Fixed) -> Iterator[Candidate]:
    """What fits if anything does: the fewest sequences in flight, or all requests at once, so that no newcomers'
    prompts join a pass; with the smallest ring that still overlaps, the usual one, and none."""
    everyone = sorted(candidates(case, fixed), key=lambda c: (c.policy.gamma, c.policy.in_flight))
    whole = [c for c in everyone if not c.policy.refill]
    rings = (2, RING_SLOTS[0], 0) if fixed.ring_slots is None else (fixed.ring_slots,)
    for c in dict.fromkeys((*everyone[:1], *whole[:1])):
        for slots in rings:
            policy = c.policy
            yield make(case, c.strategy, policy.gamma, policy.batch, slots, policy.expert_fetch, fixed)


def make(
    case: Case,
    strategy: StrategyName,
    gamma: int,
    batch: int,
    ring_slots: int,
    fetch: str,
    fixed: Fixed,
    cuts: float = 1,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Candidate:
    """The candidate with these numbers; the others follow from them."""
    batches, workload = most_batches(strategy, fixed), case.workload
    split = Policy(gamma, batch, batches, 1, 0, stages=fixed.stages or 1, tensor=fixed.tensor or 1)
    if split.stages > 1 and gamma == 0 and fixed.batches is None:
        batches = max(BATCHES[strategy], batches - 1)  # none is drafted for
    positions = _kv_positions(case, fixed)  # of all devices together
    case = stages(case, split)[0].case
    in_flight = batch * batches
    chunk_tokens = fixed.chunk_tokens or chunk_tokens
    most = _prefill_batch(case, in_flight, chunk_tokens)
    prefill_batch = min(fixed.prefill_batch or math.ceil(most / cuts), in_flight)
    prompts = float(prompt_lengths(workload)[:prefill_batch].sum())
    refill = workload.requests > in_flight if fixed.refill is None else fixed.refill
    micro = micro_batches(case, batch * (gamma + 1), CHUNK_TOKENS)
    if case.machine.gpu is not None:
        kv = kv_bytes(case.target, kv_positions(workload, in_flight, gamma)) / batches
        micro = max(micro, math.ceil(kv / min(KV_PIECE, _micro_share(case))))
    policy = Policy(
        gamma=gamma,
        batch=batch,
        batches=batches,
        prefill_batch=prefill_batch,
        ring_slots=ring_slots if fixed.ring_slots is None else fixed.ring_slots,
        part_bytes=part_bytes(case),
        verify_micro_batches=min(micro, batch),
        prefill_micro_batches=min(micro_batches(case, prompts, PREFILL_TOKENS), prefill_batch),
        expert_fetch=fetch,  # type: ignore[arg-type]
        refill=refill,
        stages=split.stages,
        tensor=split.tensor,
        kv_positions=positions,
        chunk_tokens=chunk_tokens,
    )
    return Candidate(strategy, policy, cuts)


def finer(case: Case, fixed: Fixed, c: Candidate) -> Candidate | None:
    """The candidate with the next smaller chunks that take less; None where there are none, or memory is not tight."""
    policy = c.policy
    tokens = float(prompt_lengths(case.workload)[: policy.prefill_batch].sum())
    budget = case.machine.budgets()[case.machine.fast]
    spaces = workspaces(case.target, tokens, 1, 0.0, part_bytes=policy.part_bytes, chunk_tokens=policy.chunk_tokens)
    if fixed.chunk_tokens is not None or spaces["ffn workspace"] < TIGHT * budget:
        return None
    numbers = policy.gamma, policy.batch, policy.ring_slots, policy.expert_fetch
    for chunk in CHUNKS:
        if chunk < min(policy.chunk_tokens, tokens):
            return make(case, c.strategy, *numbers, fixed, c.cuts, chunk)
    return None


def micro_batches(case: Case, tokens: float, most: float) -> int:
    """Of attention over `tokens` tokens: each of at most `most` tokens, and of its share of the fast memory."""
    whole = workspaces(case.target, tokens, 1, 0.0)["attention workspace"]
    return max(1, math.ceil(tokens / most), math.ceil(whole / _micro_share(case)))


def _micro_share(case: Case) -> float:
    """Bytes."""
    return MICRO_SHARE * case.machine.budgets()[case.machine.fast]


def _kv_positions(case: Case, fixed: Fixed) -> int | None:
    """What all caches may hold, with a draft's beside the target's if there is a draft at all."""
    return None if fixed.kv_bytes is None else capped_positions(case, fixed.kv_bytes, draft=True)


def _fetches(case: Case, sequences: int, gamma: int, fixed: Fixed) -> tuple[str, ...]:
    """Fetching only what the router asks for is worth a look while a pass leaves experts alone."""
    if fixed.expert_fetch is not None:
        return (fixed.expert_fetch,)
    ffn = case.target.ffn
    if not ffn.is_moe:
        return ("all",)
    used = distinct_experts(ffn, sequences * (gamma + 1)) / ffn.experts
    return ("all", "routed") if used < 1 - ROUTED_SPARES else ("all",)


def part_bytes(case: Case) -> int:
    """The largest power of two within a part's share of the fast memory, from `LEAST_PART_BYTES` to `PART_BYTES`."""
    share = PART_SHARE * case.machine.budgets()[case.machine.fast]
    return 1 << (int(max(LEAST_PART_BYTES, min(share, PART_BYTES))).bit_length() - 1)


def _prefill_batch(case: Case, in_flight: int, chunk_tokens: int) -> int:
    """The most prompts whose activations take no more than their share of the fast memory, halving from all."""
    lengths = prompt_lengths(case.workload)
    budget = SWEEP_SHARE * case.machine.budgets()[case.machine.fast]
    batch = in_flight
    while batch > 1:
        tokens = float(lengths[:batch].sum())
        micro = min(micro_batches(case, tokens, PREFILL_TOKENS), batch)
        sizes = {"part_bytes": part_bytes(case), "chunk_tokens": chunk_tokens}
        if sum(workspaces(case.target, tokens, micro, batch, **sizes).values()) <= budget:
            break
        batch = math.ceil(batch / 2)
    return batch


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise UnknownNameError(name, value, allowed, where=f"--fix {name}")
