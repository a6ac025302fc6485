"""A plan's placement at the grain of modules, which is the finest that transformers' `device_map` knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from specsim.case import Case
from specsim.decision import MEMORY_OF, Decision


@dataclass(frozen=True, slots=True)
class Module:
    """A module of layer `layer`: its name in the checkpoint, its bytes, and the share of them that the plan has in each
    memory."""

    name: str
    layer: int
    bytes: int
    shares: Mapping[str, float]


def modules(case: Case, decision: Decision) -> Iterator[Module]:
    """Attention and FFN of every layer, in order; norms are as small as they are many, and go with the attention."""
    model = case.target
    for layer, place in enumerate(decision.layers):
        prefix, ffn = f"model.layers.{layer}", model.layer_ffn(layer)
        attention = model.attention_parameters * model.element_bytes
        yield Module(f"{prefix}.self_attn", layer, attention, {MEMORY_OF[place.attention.weights]: 1.0})
        size = (ffn.experts * model.expert_parameters(ffn) + model.router_parameters(ffn)) * model.element_bytes
        homes = [MEMORY_OF[part.weights] for part in place.ffn]
        shares = {memory: homes.count(memory) / len(homes) for memory in set(homes)}
        yield Module(f"{prefix}.mlp", layer, size, shares)


def assign(parts: Sequence[Module], room: Mapping[str, float]) -> dict[str, str]:
    """The memory of each module by name. Memories are filled in the order of `room` (bytes), the fastest first, each
    with what the plan has most of there; the last takes the rest."""
    *limited, last = room
    left, homes = list(parts), {}
    for memory in limited:
        free = room[memory]
        for part in sorted(left, key=lambda part: -part.shares.get(memory, 0.0)):
            if part.bytes <= free:
                free -= part.bytes
                homes[part.name] = memory
        left = [part for part in left if part.name not in homes]
    return homes | {part.name: last for part in left}
