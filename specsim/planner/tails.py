"""Processors for the rounds in which few sequences are left.

The slowest requests of a batch need up to twice the mean number of rounds, so every batch that is not refilled ends
with rounds of few sequences. Weights and caches stay where they are; but with fewer rows the CPU meets a part in RAM
sooner than the link brings it. Nothing moves, so layers are independent, and each is settled by trying all its ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specsim.case import Case
from specsim.decision import AttentionPlacement, LayerPlacement, PartPlacement, Policy
from specsim.model import FeedForward
from specsim.partition import layer_units
from specsim.planner.classes import LayerClass, Row, class_rows
from specsim.planner.options import PassLoads


def tail_layers(
    case: Case,
    layers: Sequence[LayerPlacement],
    loads: PassLoads,
    attention: Sequence[AttentionPlacement],
    parts: Sequence[PartPlacement],
    policy: Policy,
) -> tuple[LayerPlacement, ...]:
    """Every layer with the processors that make it fastest under `loads`, all homes kept."""
    settled: dict[tuple[FeedForward, LayerPlacement], LayerPlacement] = {}
    rows: dict[tuple[Any, ...], list[Row]] = {}  # they depend on what is used, not on how much of it

    def seconds(kind: FeedForward, place: LayerPlacement) -> float:
        used = tuple(dict.fromkeys(place.ffn))
        key = (kind, place.attention, used)
        if key not in rows:
            on_cpu = sum(part.processor == "cpu" for part in place.ffn)
            k = LayerClass(
                kind, layer_units(case.target, kind, policy.part_bytes).parts, on_cpu, (place.attention,), used
            )
            rows[key] = class_rows(k, loads, attention, parts, policy.ring_slots)
        counts = [(part, place.ffn.count(part)) for part in used]
        return max(
            row.layer + row.attention[place.attention] + sum(n * row.parts[part] for part, n in counts)
            for row in rows[key]
        )

    chosen = []
    for layer, place in enumerate(layers):
        key = (case.target.layer_ffn(layer), place)
        if key not in settled:
            settled[key] = min(_ways(key[0], place, attention, parts), key=lambda way: seconds(key[0], way))
        chosen.append(settled[key])
    return tuple(chosen)


def _ways(
    kind: FeedForward, place: LayerPlacement, attention: Sequence[AttentionPlacement], parts: Sequence[PartPlacement]
) -> list[LayerPlacement]:
    """The layer as it is, and with any number of the parts that lie in RAM on the CPU (of a dense FFN: none or all)."""
    cores = [a for a in attention if (a.weights, a.kv) == (place.attention.weights, place.attention.kv)]
    movable = {p.weights for p in parts if p.processor == "cpu"} & {p.weights for p in parts if p.processor == "gpu"}
    held = [i for i, part in enumerate(place.ffn) if part.weights in movable]
    ways = [place]
    for core in cores:
        counts = range(len(held) + 1) if kind.is_moe else {0, len(held)} & {0, len(place.ffn)}
        for count in counts:
            on_cpu = set(held[len(held) - count :])
            on_gpu = set(held) - on_cpu
            ffn = [
                PartPlacement(p.weights, "cpu" if i in on_cpu else "gpu" if i in on_gpu else p.processor)
                for i, p in enumerate(place.ffn)
            ]
            ways.append(LayerPlacement(core, tuple(ffn)))
    return ways
