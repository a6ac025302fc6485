"""Runs of tiny checkpoints under hand-made decisions: the harness of the engine's tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from executor.batches import Commit
from executor.checkpoint.checkpoint import Checkpoint
from executor.checkpoint.read import Reader
from executor.decoder.numerics import EXACT, Numerics
from executor.detokenizer import Decode
from executor.devices import Devices
from executor.engine import Chaos, Engine
from executor.job import Job
from executor.lanes import HostLane, Lane
from executor.links import Link
from executor.requests import Request
from executor.setup import Ways, prepare
from executor.speculation.sampling import Sampling
from specsim.acceptance import Acceptance
from specsim.answer import Plan, Predicted, Provenance, SearchInfo
from specsim.case import Case
from specsim.decision import (
    BATCHES,
    AttentionPlacement,
    Decision,
    DraftPolicy,
    LayerPlacement,
    PartPlacement,
    Policy,
    StrategyName,
)
from specsim.model import Model
from specsim.partition import layer_units
from specsim.workload import Workload
from tests.specsim import stories

#: small enough that the experts of the tiny mixtures are parts of their own
PART_BYTES = 1

NO_PREDICTION = Predicted(
    tokens_per_second=1.0,
    makespan_s=1.0,
    prefill_s=1.0,
    decode_s=1.0,
    slot_s=1.0,
    tokens_per_slot=1.0,
    utilisation={},
    peak_bytes={},
    bottleneck="",
    bound_tokens_per_second=1.0,
)


@dataclass(frozen=True, slots=True)
class World:
    """Where a run takes place: `homes` by unit kind, all else as the policy has it."""

    gpu: bool = False
    attention: str = "ram"  # home of attention weights
    ffn: str = "disk"  # home of FFN parts
    processor: str | None = None  # of attention: "gpu", "cpu" (core only), "cpu+projections"
    cpu_parts: int = 0  # FFN parts that the CPU computes beside a GPU
    kv: str | None = None
    part_bytes: int = PART_BYTES


def placement(model: Model, world: World) -> tuple[LayerPlacement, ...]:
    main = "gpu" if world.gpu else "cpu"
    core, projections = {
        None: (main, main),
        "gpu": ("gpu", "gpu"),
        "cpu": ("cpu", "gpu"),
        "cpu+projections": ("cpu", "cpu"),
    }[world.processor]
    kv = world.kv or ("vram" if core == "gpu" else "ram")
    layers = []
    for layer in range(model.layers):
        count = layer_units(model, model.layer_ffn(layer), world.part_bytes).parts
        cut = not model.layer_ffn(layer).is_moe
        on_cpu = (count if world.cpu_parts else 0) if cut else world.cpu_parts
        parts = tuple(PartPlacement(world.ffn, "cpu" if p >= count - on_cpu else main) for p in range(count))  # type: ignore[arg-type]
        layers.append(LayerPlacement(AttentionPlacement(world.attention, core, projections, kv), parts))  # type: ignore[arg-type]
    return tuple(layers)


def plan(
    target: Model,
    *,
    draft: Model | None = None,
    world: World = World(),
    strategy: StrategyName = "serial",
    gamma: int = 0,
    batch: int = 4,
    prompt: int = 300,
    output: int = 64,
    requests: int = 8,
    draft_policy: DraftPolicy | None = None,
    **policy: Any,
) -> Plan:
    """A plan as a planner might have made it. `gamma` without a draft is n-gram drafting."""
    machine = stories.machine(bare=not world.gpu)
    if gamma and draft is not None and draft_policy is None:
        draft_policy = DraftPolicy("gpu" if world.gpu else "cpu", "vram" if world.gpu else "ram", batch)
    numbers: dict[str, Any] = {"batches": BATCHES[strategy]} | policy
    numbers = {"prefill_batch": batch * numbers["batches"], "ring_slots": 2} | numbers
    decision = Decision(
        strategy,
        Policy(gamma, batch, part_bytes=world.part_bytes, draft=draft_policy if gamma else None, **numbers),
        placement(target, world),
    )
    acceptance = Acceptance.constant(0.5, "assumed", "tests") if gamma else None
    work = Workload("tests", "tests", prompt, prompt, prompt, output, requests)
    case = Case(machine, target, work, draft if gamma else None, acceptance)
    return Plan(case, decision, NO_PREDICTION, SearchInfo(0, 0, 0.0, "", 0.0), Provenance("tests"))


def execute(
    made: Plan,
    target: Checkpoint,
    requests: Sequence[Request],
    *,
    draft: Checkpoint | None = None,
    numerics: Numerics = EXACT,
    sampling: Sampling | None = None,
    decode: Decode | None = None,
    link: Link | None = None,
    poison: bool = False,
    chaos: Chaos | None = None,
    reader: Reader | None = None,
    devices: Devices | None = None,
    lanes: Callable[[str], Lane] = HostLane,
    record: Callable[[Commit], None] = lambda commit: None,
    adaptive: bool = False,
) -> tuple[list[list[int]], Job]:
    """Run `requests`; the output tokens of each, in their order, and the job afterwards."""
    devices = devices or Devices("gpu" if made.case.machine.gpu else "cpu")
    with Engine(lanes, chaos=chaos) as engine:
        ways = Ways(numerics, decode, poison, adaptive)
        job = prepare(made, target, draft, engine, devices, link or Link(), reader or Reader(), ways)
        job.batches.record = record
        job.run(requests if sampling is None else [replace(r, sampling=sampling) for r in requests])
        done = {}
        while not job.batches.finished.empty():
            generation = job.batches.finished.get()
            done[generation.request.index] = generation.output_ids
    return [done[request.index] for request in requests], job


def prompts(
    seed: int, count: int, vocab: int, *, shortest: int = 1, longest: int = 300, new: int = 24
) -> list[Request]:
    """Requests of random tokens and mixed lengths, the first and second as short and as long as any."""
    rng = random.Random(seed)
    lengths = [shortest, longest, *(rng.randint(shortest, longest) for _ in range(count))][:count]
    return [
        Request(i, str(i), tuple(rng.randrange(3, vocab) for _ in range(length)), new, eos=frozenset({2}))
        for i, length in enumerate(lengths)
    ]
