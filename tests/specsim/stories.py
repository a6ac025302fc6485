"""Tiny models, machines and decisions with round numbers, for tests that are worked out by hand."""

from __future__ import annotations

from typing import Any

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.decision import BATCHES, AttentionPlacement, Decision, DraftPolicy, LayerPlacement, PartPlacement, Policy
from specsim.hardware import Curve, Disk, Gpu, Host, Link, Machine, Processor
from specsim.model import FeedForward, Model
from specsim.partition import PART_BYTES, layer_units
from specsim.schedule.graph import Graph
from specsim.simulator import pricing
from specsim.workload import Workload

INSTANT = 1e30  # a rate at which the work of these models takes no time that a float can hold


def model(**changes: Any) -> Model:
    """Odd sizes that tell every dimension apart: h 4, n_q 2, n_kv 1, d 3, f 8, V 10, 2 layers, 2 bytes.

    Per layer: attention 4 * (2 * 6 + 2 * 3) + 2 * 4 = 80 parameters, FFN 3 * 4 * 8 = 96, K and V of a position 12
    bytes.
    """
    sizes: dict[str, Any] = {
        "name": "tiny",
        "family": "llama",
        "hidden": 4,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "head_dim": 3,
        "vocab": 10,
        "max_positions": 10_000,
        "tied": False,
        "dtype": "bfloat16",
        "ffn": FeedForward(8),
    }
    return Model(**sizes | changes)


def even(**changes: Any) -> Model:
    """All sizes tiny and the units equal: attention 2 * (2 * 4 + 2 * 2) = 24 bytes, FFN 2 * 3 * 2 * 2 = 24 bytes;
    a token's hidden state 4 bytes, its K and V in a layer 4 bytes."""
    sizes: dict[str, Any] = {"hidden": 2, "heads": 1, "kv_heads": 1, "head_dim": 1, "vocab": 5}
    return model(**sizes | {"ffn": FeedForward(2)} | changes)


def moe(**changes: Any) -> Model:
    """4 experts, 2 per token, each a part of its own: 3 * 8192 * 8192 * 2 bytes = 384 MiB."""
    sizes: dict[str, Any] = {"family": "mixtral", "hidden": 8192, "ffn": FeedForward(8192, experts=4, top_k=2)}
    return model(**sizes | changes)


def wide(**changes: Any) -> Model:
    """A dense FFN in three parts of 512 MiB."""
    return model(**{"hidden": 16384, "ffn": FeedForward(16384)} | changes)


def processor(flops: float = INSTANT, bandwidth: float = INSTANT, overhead: float = 0.0) -> Processor:
    rates = {"fp32": flops, "bf16": flops, "fp16": flops}
    return Processor(rates, bandwidth, Curve.flat(1.0), 1.0, 1.0, overhead)


def machine(
    *,
    gpu: Processor | None = None,
    cpu: Processor | None = None,
    link: float = 4.0,
    disk: float = 4.0,
    vram: float = 1e15,
    ram: float = 1e15,
    bare: bool = False,
) -> Machine:
    """Efficiencies 1, overheads and latencies 0, processors without limits unless given; `bare` has no GPU.

    A pageable copy reaches half the link's rate.
    """
    host = Host("host", "host", 4, 1, ram, cpu or processor(), "link", "disk", 100.0, 0.0)
    ssd = Disk("disk", "disk", 1e18, disk, 1.0, 0.0, 5.0, 2, 2**24)
    if bare:
        return Machine("bare", host, ssd, ram_budget_bytes=ram)
    card = Gpu("gpu", "gpu", vram, gpu or processor(), "link", "host", 200.0)
    return Machine("full", host, ssd, card, Link("link", "link", link, 1.0, 0.5, 0.0), vram, ram)


def workload(prompt: int = 4, output: int = 5, requests: int = 4, *, longest: int | None = None) -> Workload:
    """`requests` prompts of `prompt` tokens, or of that mean and up to `longest`."""
    return Workload("work", "work", prompt, longest or prompt, prompt if longest is None else 1, output, requests)


def acceptance(rate: float = 0.5) -> Acceptance:
    return Acceptance.constant(rate, "assumed", "tests")


def case(
    on: Machine | None = None,
    target: Model | None = None,
    work: Workload | None = None,
    *,
    draft: Model | None = None,
    rate: float = 0.5,
) -> Case:
    return Case(
        on or machine(),
        target or model(),
        work or workload(),
        draft,
        None if draft is None else acceptance(rate),
    )


def layers(
    target: Model,
    attention: str = "gpu",
    weights: str = "vram",
    *,
    cpu_parts: int = 0,
    ffn: str | None = None,
    kv: str | None = None,
) -> tuple[LayerPlacement, ...]:
    """All layers alike. `attention`: "gpu", "cpu", "cpu+projections" or "bare" (no GPU); the last `cpu_parts` parts
    of the FFN are computed by the CPU (all of them without a GPU); `ffn` is their home if it is not `weights`."""
    core, projections = {
        "gpu": ("gpu", "gpu"),
        "cpu": ("cpu", "gpu"),
        "cpu+projections": ("cpu", "cpu"),
        "bare": ("cpu", "cpu"),
    }[attention]
    cache = kv or ("vram" if attention == "gpu" else "ram")
    placed = []
    for layer in range(target.layers):
        count = layer_units(target, target.layer_ffn(layer), PART_BYTES).parts
        on_cpu = count if attention == "bare" else cpu_parts
        parts = tuple(
            PartPlacement(ffn or weights, "cpu" if part >= count - on_cpu else "gpu") for part in range(count)
        )
        placed.append(LayerPlacement(AttentionPlacement(weights, core, projections, cache), parts))
    return tuple(placed)


def decision(strategy: str, placed: tuple[LayerPlacement, ...], **policy: Any) -> Decision:
    """`policy` overrides: plain decoding of one sequence per batch, a ring of two slots."""
    numbers: dict[str, Any] = {"gamma": 0, "batch": 1, "batches": BATCHES[strategy], "ring_slots": 2}
    numbers["prefill_batch"] = policy.get("batch", 1) * BATCHES[strategy]
    return Decision(strategy, Policy(**numbers | policy), placed)


def on_gpu(kv: str = "vram", micro_batch: int = 1, *, waits: bool = False) -> DraftPolicy:
    return DraftPolicy("gpu", kv, micro_batch, waits)


def on_cpu(kv: str = "ram", micro_batch: int = 1, *, waits: bool = False) -> DraftPolicy:
    return DraftPolicy("cpu", kv, micro_batch, waits)


def log(graph: Graph, on: Machine, *prefixes: str) -> list[tuple[float, float, str]]:
    """(start, end, name) of every task that takes time and whose name starts with one of `prefixes`, in time order."""
    starts, ends = pricing.run(graph, on)
    rows = [(start, end, task.name) for task, start, end in zip(graph.tasks, starts, ends, strict=True) if end > start]
    return sorted(row for row in rows if row[2].startswith(prefixes or ""))
