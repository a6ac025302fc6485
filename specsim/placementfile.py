"""Placements in a plan file: layers placed alike stand together, as in "0-3 7"; what nobody could run is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from specsim.answer import Wire
from specsim.bounded import short
from specsim.case import Case
from specsim.decision import (
    BATCHES,
    LEAST_CHUNK,
    LETTERS,
    AttentionPlacement,
    Decision,
    Home,
    LayerPlacement,
    PartPlacement,
    Policy,
    Processor,
)
from specsim.devices import straddles
from specsim.errors import InputError
from specsim.model import Model
from specsim.partition import layer_units, shard, stage_layers

#: of layers there are at most 1024
_NUMBER: Final = re.compile("[0-9]{1,12}")
#: of candidates, and of anything else that a policy counts: a plan with more is no plan, and costs memory to find out
_MOST_CANDIDATES: Final = 1024
_MOST: Final = 2**31 - 1


class Parts(Wire, frozen=True):
    """So many parts of an FFN, one after another."""

    parts: int
    weights: Home
    processor: Processor


class Layers(Wire, frozen=True):
    """Layers placed alike: `layers` as in "0-3 7 9-11"."""

    layers: str
    attention: AttentionPlacement
    ffn: list[Parts]


def group(layers: Sequence[LayerPlacement]) -> list[Layers]:
    """Layers that are placed alike, together."""
    alike: dict[LayerPlacement, list[int]] = {}
    for layer, place in enumerate(layers):
        alike.setdefault(place, []).append(layer)
    groups = []
    for place, numbers in alike.items():
        runs = [(part, len(list(run))) for part, run in groupby(place.ffn)]
        parts = [Parts(parts=n, weights=p.weights, processor=p.processor) for p, n in runs]
        groups.append(Layers(layers=_ranges(numbers), attention=place.attention, ffn=parts))
    return groups


def _ranges(numbers: Sequence[int]) -> str:
    """ "0-3 7 9-11"."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def ungroup(groups: Sequence[Layers], target: Model, part_bytes: int, where: str) -> tuple[LayerPlacement, ...]:
    placed: dict[int, LayerPlacement] = {}
    where = f"{where}: placement"
    parts = {kind: layer_units(target, kind, part_bytes).parts for kind in target.ffn_kinds}
    most = max(parts.values())
    for alike in groups:
        if any(not 1 <= p.parts <= most for p in alike.ffn) or sum(p.parts for p in alike.ffn) > most:
            raise InputError(
                f"layers {short(alike.layers)} name a number of FFN parts that is not 1 to {most}", where=where
            )
        ffn = tuple(PartPlacement(p.weights, p.processor) for p in alike.ffn for _ in range(p.parts))
        for word in alike.layers.split():
            first, _, last = word.partition("-")
            if _NUMBER.fullmatch(first) is None or _NUMBER.fullmatch(last or first) is None:
                raise InputError(f"layers {short(alike.layers)} is not like '0-3 7'", where=where)
            for layer in range(int(first), min(int(last or first), target.layers) + 1):
                if layer in placed:
                    raise InputError(f"layer {layer} is placed twice", where=where)
                placed[layer] = LayerPlacement(alike.attention, ffn)
    if sorted(placed) != list(range(target.layers)):
        wrong = sorted(set(placed) ^ set(range(target.layers)))[0]
        problem = "is not placed" if wrong < target.layers else f"does not exist in {target.name!r}"
        raise InputError(f"layer {wrong} {problem}", where=where)
    for layer, place in sorted(placed.items()):
        wanted = parts[target.layer_ffn(layer)]
        if len(place.ffn) != wanted:
            raise InputError(f"layer {layer} places {len(place.ffn)} FFN parts of {wanted}", where=where)
    return tuple(placed[layer] for layer in range(target.layers))


def check(case: Case, decision: Decision, where: str) -> None:
    """A plan that nobody could run is bad input."""
    policy, gpu = decision.policy, case.machine.gpu is not None
    for name in ("batch", "batches", "prefill_batch", "part_bytes", "verify_micro_batches", "prefill_micro_batches"):
        if getattr(policy, name) < 1:
            raise InputError(f"policy.{name} is {getattr(policy, name)}", where=where, hint="it must be 1 or more")
    if policy.chunk_tokens < LEAST_CHUNK:
        what, hint = f"policy.chunk_tokens is {policy.chunk_tokens}", f"it must be {LEAST_CHUNK} or more"
        raise InputError(what, where=where, hint=hint)
    for name in ("batch", "prefill_batch", "prefill_micro_batches", "ring_slots", "gamma"):
        most = _MOST_CANDIDATES if name == "gamma" else _MOST
        if getattr(policy, name) > most:
            raise InputError(f"policy.{name} is {getattr(policy, name)}", where=where, hint=f"at most {most} will do")
    least = BATCHES[decision.strategy]
    most = len(LETTERS) if decision.strategy == "interleaved" and policy.stages > 1 else least
    if not least <= policy.batches <= most:
        wanted = f"{decision.strategy} has {least}{f' to {most}' if most > least else ''} in flight"
        raise InputError(f"policy.batches is {policy.batches}", where=where, hint=wanted)
    _check_devices(case, policy, where)
    if max(policy.verify_micro_batches, policy.draft.micro_batch if policy.draft else 1) > policy.batch:
        raise InputError(f"a micro-batch policy does not fit a batch of {policy.batch}", where=where)
    if policy.draft is not None and policy.draft.kv == "vram" and policy.draft.processor == "cpu":
        raise InputError("policy.draft keeps its KV in vram and computes on the cpu", where=where)
    if policy.gamma < 0 or policy.ring_slots < 0:
        raise InputError("policy.gamma and policy.ring_slots must be 0 or more", where=where)
    if policy.gamma > 0 and (case.acceptance is None or (case.draft is not None and policy.draft is None)):
        raise InputError(f"policy.gamma is {policy.gamma} but there is no draft", where=where)
    if policy.draft is not None:
        if case.draft is None:
            raise InputError("policy.draft says how a draft runs, but the plan has no draft model", where=where)
        if policy.draft.micro_batch < 1:
            hint = "it must be 1 or more"
            raise InputError(f"policy.draft.micro_batch is {policy.draft.micro_batch}", where=where, hint=hint)
        if not gpu and (policy.draft.processor == "gpu" or policy.draft.kv == "vram"):
            raise InputError("policy.draft uses a GPU on a machine without one", where=where)
    allowed = {"vram", "pinned", "pageable", "disk"} if gpu else {"ram", "disk"}
    for place in {*decision.layers, *(place for tail in decision.tails for place in tail.layers)}:
        homes = {place.attention.weights, *(part.weights for part in place.ffn)}
        processors = {place.attention.processor, place.attention.projections, *(p.processor for p in place.ffn)}
        if not homes <= allowed or (not gpu and ("gpu" in processors or place.attention.kv == "vram")):
            kind = "with" if gpu else "without"
            raise InputError(f"placement uses {sorted(homes | processors)} on a machine {kind} a GPU", where=where)
        _check_processors(place, where)
        if homes - {"vram", "ram"} and policy.ring_slots == 0:
            raise InputError("weights are streamed but policy.ring_slots is 0", where=where)


def _check_devices(case: Case, policy: Policy, where: str) -> None:
    machine = case.machine
    for name in ("stages", "tensor"):
        if getattr(policy, name) < 1:
            raise InputError(f"policy.{name} is {getattr(policy, name)}", where=where, hint="it must be 1 or more")
    used = policy.stages * policy.tensor
    if used > machine.devices:
        what = f"policy.stages x policy.tensor is {used}"
        raise InputError(what, where=where, hint=f"{machine.name} has {machine.devices} devices")
    if straddles(machine, policy.stages, policy.tensor):
        what = f"policy.tensor is {policy.tensor}"
        hint = f"a node has {machine.node_devices} devices, and no tensor split leads out of one"
        raise InputError(what, where=where, hint=hint)
    for layers in stage_layers(case.target, policy.stages):
        shard(case.target, layers, policy.tensor)


def _check_processors(place: LayerPlacement, where: str) -> None:
    """What the CPU computes has to lie beside it."""
    a = place.attention
    if a.projections == "cpu" and (a.processor != "cpu" or a.weights == "vram"):
        raise InputError("projections on the cpu need the core there and weights in RAM", where=f"{where}: placement")
    if a.processor == "cpu" and a.kv == "vram":
        raise InputError("attention on the cpu needs its kv in ram", where=f"{where}: placement")
    if any(part.processor == "cpu" and part.weights == "vram" for part in place.ffn):
        raise InputError("an FFN part on the cpu has its weights in vram", where=f"{where}: placement")
