"""Classes of layers that work alike, and the rows that bound their time.

A ring of a few slots cannot even out a layer that waits for its CPU with one that does not. So layers are put into
classes whose members run the same way (attention on the same processor with its cache in the same memory, as many parts
of the FFN on the CPU) and differ only in what is resident; a pass takes the sum of its classes' times, and each class
takes as long as its busiest row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from specsim.decision import AttentionPlacement, PartPlacement
from specsim.model import FeedForward
from specsim.planner.options import Loads, PassLoads

#: parts of a layer's FFN that the CPU may compute beside a GPU; all of them is a choice too
CPU_PARTS: Final = (0, 1, 2, 3, 4, 6)

Choice = TypeVar("Choice", AttentionPlacement, PartPlacement)


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds per layer, per layer with each attention, and per part with each placement: time >= their sum."""

    layer: float
    attention: Mapping[AttentionPlacement, float]
    parts: Mapping[PartPlacement, float]


@dataclass(frozen=True, slots=True)
class LayerClass:
    """Layers with FFN `kind` of `size` parts, `cpu_parts` of them on the CPU. `attention` and `parts` are the choices
    that its layers have."""

    kind: FeedForward
    size: int
    cpu_parts: int
    attention: tuple[AttentionPlacement, ...]
    parts: tuple[PartPlacement, ...]


def layer_classes(
    size: int,
    attention: Sequence[AttentionPlacement],
    parts: Sequence[PartPlacement],
    kind: FeedForward,
    *,
    whole: bool = False,
) -> list[LayerClass]:
    """All classes of layers with FFN `kind` of `size` parts. `whole`: those whose weights all have one home."""
    if whole:
        homes = dict.fromkeys(a.weights for a in attention)
        at = {h: ([a for a in attention if a.weights == h], [p for p in parts if p.weights == h]) for h in homes}
        return [k for cores, units in at.values() for k in layer_classes(size, cores, units, kind)]
    modes = dict.fromkeys((a.processor, a.projections, a.kv) for a in attention)
    processors = {part.processor for part in parts}
    counts = [size if "cpu" in processors else 0]
    if len(processors) == 2:
        # The matrices of a dense FFN need one another's products, so they stay together; experts do not.
        counts = sorted({c for c in (*CPU_PARTS, size) if c <= size} if kind.is_moe else {0, size})
    classes = []
    for mode in modes:
        cores = tuple(a for a in attention if (a.processor, a.projections, a.kv) == mode)
        for c in counts:
            used = tuple(p for p in parts if (p.processor == "cpu" and c > 0) or (p.processor == "gpu" and c < size))
            classes.append(LayerClass(kind, size, c, cores, used))
    return classes


def class_rows(
    k: LayerClass,
    loads: PassLoads,
    attention: Sequence[AttentionPlacement],
    parts: Sequence[PartPlacement],
    ring_slots: int,
) -> list[Row]:
    """The rows of a class: every pool, the chain over each processor, and the ring. `attention` and `parts` are the
    choices that `loads` is in the order of."""
    by_core = {a: load for a, load in zip(attention, loads.attention[k.kind], strict=True) if a in k.attention}
    by_part = {part: load for part, load in zip(parts, loads.parts[k.kind], strict=True) if part in k.parts}
    pools = sorted({name for load in (*by_core.values(), *by_part.values()) for name in load.pools})
    rows = [Row(0.0, {a: x.pools.get(name, 0.0) for a, x in by_core.items()}, _pool(by_part, name)) for name in pools]
    chains = {a: load.chain for a, load in by_core.items()}
    for processor in sorted({part.processor for part in k.parts}):
        # Parts on the other processor run beside this chain.
        on = {part: load.chain if part.processor == processor else 0.0 for part, load in by_part.items()}
        rows.append(Row(0.0, chains, on))
    streamed = _pool(by_part, "h2d")
    if any(streamed.values()):
        # While attention runs the link gets ahead by the ring's slots and no further; the rest comes after it.
        rows.append(Row(-ring_slots * max(streamed.values()), chains, streamed))
    return rows


def worthwhile(rows: Mapping[LayerClass, Sequence[Row]], shares: Mapping[str, float], most: int) -> list[LayerClass]:
    """The `most` most promising classes, by the time of a layer whose units are spread over homes by `shares`.

    A good placement mixes one or two classes, so more only slow the solver down. Classes that ask nothing of the CPU
    stay too: parts that it computes have to lie in RAM, which may be short.
    """
    promise = {k: _blended_seconds(k, r, shares) for k, r in rows.items()}
    ranked = sorted(rows, key=promise.__getitem__)
    return ranked[:most] + [k for k in ranked[most:] if not any(part.processor == "cpu" for part in k.parts)]


def _blended_seconds(k: LayerClass, rows: Sequence[Row], shares: Mapping[str, float]) -> float:
    on_cpu = _spread(k.parts, shares, "cpu")
    on_gpu = _spread(k.parts, shares, "gpu")
    cores = _spread(k.attention, shares, None)
    return max(
        row.layer
        + sum(share * row.attention[a] for a, share in cores.items())
        + k.cpu_parts * sum(share * row.parts[part] for part, share in on_cpu.items())
        + (k.size - k.cpu_parts) * sum(share * row.parts[part] for part, share in on_gpu.items())
        for row in rows
    )


def _spread(choices: Iterable[Choice], shares: Mapping[str, float], processor: str | None) -> dict[Choice, float]:
    """Shares of the choices on `processor` (None: all), adding up to 1."""
    able = [c for c in choices if processor in (None, c.processor)]
    weights = [shares.get(c.weights, 0.0) + 1e-9 for c in able]
    return {c: weight / sum(weights) for c, weight in zip(able, weights, strict=True)}


def _pool(by_part: Mapping[PartPlacement, Loads], name: str) -> dict[PartPlacement, float]:
    return {part: load.pools.get(name, 0.0) for part, load in by_part.items()}
