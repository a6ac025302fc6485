"""A pass over an emulated link: how near it comes to max(transfer, compute), and that every byte is accounted for.

    python -m benchmarks.link [--json]

A generated target of 212 MB in bf16 (8 layers, 8 experts) decodes 256 sequences without speculation on an emulated GPU
of one thread. Everything is pinned and crosses the emulated link through a ring of three slots; the link's rate is such
that the transfer takes from a third to three times as long as the computation, which is the median round of the same
plan with everything in VRAM. Runs alternate; for each rate the median round is printed over the larger of its bytes
over the rate and that computation. The goal is 1.05. The copies behind the emulation take a core of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace as change

import specsim
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.checkpoint.read import Reader
from executor.decoder.numerics import FAST
from executor.devices import Devices
from executor.engine import Engine
from executor.links import Link, Pacer
from executor.pairs.make import make, plan_pair
from executor.requests import Request
from executor.setup import Ways, prepare
from specsim.answer import Plan
from specsim.decision import LayerPlacement
from specsim.timeline.rounds import round_ends
from specsim.units import MiB, show

SEQUENCES, PROMPT, ROUNDS, REPETITIONS = 256, 16, 6, 5
#: how long the transfer takes, in computations
SLOWNESS = (0.33, 0.67, 1.5, 3.0)
GOAL = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link", description="Passes over an emulated link.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        target = _target(Path(folder))
        resident = _plan(target)
        streamed = _pinned(resident)
        compute = statistics.median(_rounds(resident, target, None)[0])  # to choose rates by
        size = _rounds(streamed, target, None)[1]
        rates = [size / (slowness * compute) for slowness in SLOWNESS]
        alone: list[float] = []
        found: dict[float, list[float]] = {rate: [] for rate in rates}
        for _ in range(REPETITIONS):
            alone += _rounds(resident, target, None)[0]
            for rate in rates:
                seconds, moved = _rounds(streamed, target, rate)
                assert moved == size, f"{moved} bytes moved instead of {size}"
                found[rate] += seconds
    rows = [_row(rate, size, statistics.median(alone), statistics.median(found[rate])) for rate in rates]
    if options.json:
        print(json.dumps({"bytes_per_round": size, "rates": rows}, indent=2))
        return
    took = show(statistics.median(alone), "seconds")
    print(f"{show(size, 'bytes')} per round, {SEQUENCES} sequences, computation {took}")
    for row in rows:
        print(
            f"{show(row['bytes_per_s'], 'bytes/s'):>10}: transfer {show(row['transfer_s'], 'seconds'):>7}, "
            f"round {show(row['round_s'], 'seconds'):>7}, {row['ratio']:.3f} of the larger of the two"
        )
    worst = max(row["ratio"] for row in rows)
    print(f"worst {worst:.3f} (goal {GOAL}: {'met' if worst <= GOAL else 'missed'})")


def _target(folder: Path) -> Checkpoint:
    sizes = {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "intermediate_size": 1024,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 2048,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "torch_dtype": "bfloat16",
    }
    pair = plan_pair(sizes, draft_layers=1, draft_ratio=None)
    make(folder / "pair", pair, noise=0.5, seed=0, shard_bytes=int(128 * MiB), say=lambda _: None)
    return open_checkpoint(folder / "pair" / "target")


def _plan(target: Checkpoint) -> Plan:
    """Everything resident, one batch, plain decoding; parts of two experts."""
    plan = specsim.plan(
        gpu="rtx4090",
        target=target.directory,
        requests=SEQUENCES,
        prompt_tokens=PROMPT,
        output_tokens=ROUNDS + 1,
        fix={"gamma": 0, "strategy": "serial", "batch": SEQUENCES, "ring_slots": 3},
    )
    homes = {part.weights for layer in plan.decision.layers for part in layer.ffn}
    assert homes == {"vram"}, f"the resident plan has weights in {homes}"
    return plan


def _pinned(plan: Plan) -> Plan:
    """The same plan with all units in pinned RAM."""

    def moved(layer: LayerPlacement) -> LayerPlacement:
        attention = change(layer.attention, weights="pinned")
        return change(layer, attention=attention, ffn=tuple(change(part, weights="pinned") for part in layer.ffn))

    layers = tuple(map(moved, plan.decision.layers))
    return replace(plan, decision=change(plan.decision, layers=layers))


def _rounds(plan: Plan, target: Checkpoint, rate: float | None) -> tuple[list[float], int]:
    """Seconds of each round but the first, and the bytes of weights that each moves."""
    reader, link = Reader(), Link(None if rate is None else Pacer(rate))
    requests = [Request(i, str(i), tuple(range(i, i + PROMPT)), ROUNDS + 1) for i in range(SEQUENCES)]
    try:
        with Engine() as engine:
            job = prepare(plan, target, None, engine, Devices("gpu"), link, reader, Ways(FAST))
            job.run(requests)
            timeline = engine.timeline()
    finally:
        reader.close()
    ends = round_ends(timeline)
    seconds = [ends[n] - ends[n - 1] for n in sorted(ends) if n - 1 in ends]
    loads = [span for span in timeline.spans if span.stream == "h2d"]
    moved = {sum(span.bytes for span in loads if span.name.startswith(f"verify.{n}/")) for n in ends}
    assert len(moved) == 1, f"rounds moved {sorted(moved)} bytes"
    return seconds, int(moved.pop())


def _row(rate: float, size: int, compute: float, seconds: float) -> dict[str, Any]:
    transfer = size / rate
    return {
        "bytes_per_s": rate,
        "transfer_s": transfer,
        "compute_s": compute,
        "round_s": seconds,
        "ratio": seconds / max(transfer, compute),
    }


if __name__ == "__main__":
    main()
