"""Processors for the rounds in which few sequences are left.

The slowest requests of a batch need up to twice the mean number of rounds, so every batch that is not refilled ends with
rounds of few sequences. Weights and caches stay where they are; but with fewer rows the CPU meets a part in RAM
sooner than the link brings it. Nothing moves, so layers are independent, and each is settled by trying all its ways.
"""

from __future__ import annotations

from collections.abc import Sequence

from specsim.case import Case
from specsim.decision import MEMORY_OF, AttentionPlacement, LayerPlacement, PartPlacement
from specsim.model import FeedForward
from specsim.partition import layer_units
from specsim.planner.classes import LayerClass, class_rows
from specsim.planner.options import PassLoads


def tail_layers(
    case: Case,
    layers: Sequence[LayerPlacement],
    loads: PassLoads,
    attention: Sequence[AttentionPlacement],
    parts: Sequence[PartPlacement],
    ring_slots: int,
) -> tuple[LayerPlacement, ...]:
    """Every layer with the processors that make it fastest under `loads`, all homes kept."""
    best: dict[tuple[FeedForward, LayerPlacement], LayerPlacement] = {}
    chosen = []
    for layer, place in enumerate(layers):
        key = (case.target.layer_ffn(layer), place)
        if key not in best:
            ways = _ways(place, attention)
            best[key] = min(ways, key=lambda way: _seconds(case, key[0], way, loads, attention, parts, ring_slots))
        chosen.append(best[key])
    return tuple(chosen)


def _ways(place: LayerPlacement, attention: Sequence[AttentionPlacement]) -> list[LayerPlacement]:
    """The layer as it is, and with any number of the parts that lie in RAM on the CPU."""
    cores = [a for a in attention if (a.weights, a.kv) == (place.attention.weights, place.attention.kv)]
    held = [i for i, part in enumerate(place.ffn) if MEMORY_OF[part.weights] == "ram"]
    ways = [place]
    for core in cores:
        for count in range(len(held) + 1):
            on_cpu = set(held[len(held) - count :])
            ffn = tuple(PartPlacement(p.weights, "cpu" if i in on_cpu else "gpu") for i, p in enumerate(place.ffn))
            ways.append(LayerPlacement(core, ffn))
    return ways


def _seconds(
    case: Case,
    kind: FeedForward,
    place: LayerPlacement,
    loads: PassLoads,
    attention: Sequence[AttentionPlacement],
    parts: Sequence[PartPlacement],
    ring_slots: int,
) -> float:
    """The busiest row of one layer."""
    used = tuple(dict.fromkeys(place.ffn))
    on_cpu = sum(part.processor == "cpu" for part in place.ffn)
    k = LayerClass(kind, layer_units(case.target, kind).parts, on_cpu, (place.attention,), used)
    rows = class_rows(k, loads, attention, parts, ring_slots)
    return max(row.layer + row.attention[place.attention] + sum(row.parts[p] for p in place.ffn) for row in rows)
