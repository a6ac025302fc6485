"""The plan: question, decision, prediction and provenance in one value, and its file (`specsim.plan/1`).

The file is complete: it carries the machine's facts and the models' sizes, so that it reads the same where the profiles
have changed. Keys that later versions add have defaults; keys that nobody knows are errors that name them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from specsim import machines
from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.decision import (
    BATCHES,
    AttentionPlacement,
    Decision,
    Home,
    LayerPlacement,
    PartPlacement,
    Policy,
    Processor,
    StrategyName,
    Tail,
)
from specsim.errors import InputError
from specsim.model import Model, from_config, to_config
from specsim.partition import layer_units
from specsim.workload import Workload
from specsim.yamlfile import read_yaml

SCHEMA: Final = "specsim.plan/1"


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the file."""


class Predicted(_Wire, frozen=True):
    """What the model says the plan will do. Tokens are useful tokens; `peak_bytes` is by phase and memory;
    `utilisation` by resource over one round in mid-job; `band` tokens/s at the ends of an assumed acceptance."""

    tokens_per_second: float
    makespan_s: float
    prefill_s: float
    decode_s: float
    slot_s: float
    tokens_per_slot: float
    utilisation: dict[str, float]
    peak_bytes: dict[str, dict[str, int]]
    bottleneck: str
    bound_tokens_per_second: float
    band: dict[str, float] = {}


class RunnerUp(_Wire, frozen=True):
    """A plan that lost: what it is, what it would do, and why it is slower."""

    plan: str
    tokens_per_second: float
    reason: str


class Upgrade(_Wire, frozen=True):
    """A resource multiplied, and the gain of a plan made for that machine (at least: the policy was kept)."""

    resource: str
    factor: float
    gain: float


class SearchInfo(_Wire, frozen=True):
    """How the plan was found. `gap`: how much more the candidates that were not looked at promise."""

    candidates: int
    feasible: int
    seconds: float
    solver: str
    gap: float
    runners_up: list[RunnerUp] = []
    upgrades: list[Upgrade] = []


class Provenance(_Wire, frozen=True):
    """Who made the plan, and what it takes on trust."""

    version: str
    assumptions: list[str] = []


@dataclass(frozen=True, slots=True)
class Plan:
    """A question and its answer."""

    case: Case
    decision: Decision
    predicted: Predicted
    search: SearchInfo
    provenance: Provenance

    def to_frame(self) -> Any:
        """One row: policy and prediction, as a pandas DataFrame."""
        import pandas as pd  # only here: importing pandas takes longer than planning

        policy = {f"policy_{k}": v for k, v in msgspec.to_builtins(self.decision.policy).items() if k != "draft"}
        predicted = {k: v for k, v in msgspec.to_builtins(self.predicted).items() if not isinstance(v, dict)}
        names = {"machine": self.case.machine.name, "target": self.case.target.name, "strategy": self.decision.strategy}
        return pd.DataFrame([names | policy | predicted])


class _ModelFile(_Wire, frozen=True):
    name: str
    config: dict[str, Any]


class _DraftFile(_ModelFile, frozen=True):
    acceptance: list[float]
    acceptance_kind: str
    acceptance_source: str


class _WorkloadFile(_Wire, frozen=True):
    name: str
    title: str
    prompt_tokens_mean: float
    prompt_tokens_max: int
    prompt_tokens_min: int
    output_tokens: int
    requests: int


class _Parts(_Wire, frozen=True):
    parts: int
    weights: Home
    processor: Processor


class _Layers(_Wire, frozen=True):
    layers: str
    attention: AttentionPlacement
    ffn: list[_Parts]


class _TailFile(_Wire, frozen=True):
    rows: int
    layers: list[_Layers]


class _Placement(_Wire, frozen=True):
    layers: list[_Layers]
    tails: list[_TailFile] = []


class _PlanFile(_Wire, frozen=True):
    schema: str
    machine: dict[str, Any]
    target: _ModelFile
    draft: _DraftFile | None
    workload: _WorkloadFile
    strategy: StrategyName
    policy: Policy
    placement: _Placement
    predicted: Predicted
    search: SearchInfo
    provenance: Provenance


def to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, in the order of the file."""
    case, decision = plan.case, plan.decision
    draft = None
    if case.draft is not None and case.acceptance is not None:
        draft = _DraftFile(
            name=case.draft.name,
            config=to_config(case.draft),
            acceptance=list(case.acceptance.hazards),
            acceptance_kind=case.acceptance.kind,
            acceptance_source=case.acceptance.source,
        )
    workload = {name: getattr(case.workload, name) for name in Workload.__slots__}
    file = _PlanFile(
        schema=SCHEMA,
        machine=machines.to_dict(case.machine),
        target=_ModelFile(name=case.target.name, config=to_config(case.target)),
        draft=draft,
        workload=_WorkloadFile(**workload),
        strategy=decision.strategy,
        policy=decision.policy,
        placement=_Placement(
            layers=_group(decision.layers),
            tails=[_TailFile(rows=tail.rows, layers=_group(tail.layers)) for tail in decision.tails],
        ),
        predicted=plan.predicted,
        search=plan.search,
        provenance=plan.provenance,
    )
    return dict(msgspec.to_builtins(file))


def from_dict(data: Any, where: str) -> Plan:
    """Read what `to_dict` wrote. Raises InputError with the place and the key."""
    if isinstance(data, dict) and data.get("schema") != SCHEMA:
        raise InputError(f"schema is {data.get('schema')!r}", where=where, hint=f"this version reads {SCHEMA}")
    try:
        file = msgspec.convert(data, _PlanFile, strict=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        place = path.strip("`").removeprefix("$").lstrip(".") or "the plan"
        what = message.replace("Object contains", "has").replace("Object missing required", "lacks the")
        raise InputError(f"{place}: {what}", where=where, hint="make the plan anew with specsim plan") from None
    machine = machines.from_dict(file.machine, where=f"{where}: machine")
    target = from_config(file.target.config, name=file.target.name, where=f"{where}: target")
    draft, acceptance = None, None
    if file.draft is not None:
        draft = from_config(file.draft.config, name=file.draft.name, where=f"{where}: draft")
        acceptance = Acceptance(tuple(file.draft.acceptance), file.draft.acceptance_kind, file.draft.acceptance_source)
    case = Case(machine, target, Workload(**msgspec.to_builtins(file.workload)), draft, acceptance)
    decision = Decision(
        file.strategy,
        file.policy,
        _ungroup(file.placement.layers, target, where),
        tuple(Tail(tail.rows, _ungroup(tail.layers, target, where)) for tail in file.placement.tails),
    )
    _check(case, decision, where)
    for name in Predicted.__struct_fields__:
        number = getattr(file.predicted, name)
        if isinstance(number, float) and (not math.isfinite(number) or number < 0):
            raise InputError(f"predicted.{name} is {number}", where=where, hint="it must be zero or more")
    if file.predicted.bound_tokens_per_second == 0:
        raise InputError("predicted.bound_tokens_per_second is 0", where=where, hint="it must be more than zero")
    return Plan(case, decision, file.predicted, file.search, file.provenance)


def read_plan(path: str | Path) -> Plan:
    """Read a plan file, YAML or JSON."""
    data = read_yaml(path)  # JSON is YAML
    if not isinstance(data, dict):
        raise InputError("is not a plan", where=str(path), hint="make one with specsim plan -o FILE")
    return from_dict(data, str(path))


def write_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan file: JSON where the name ends in .json, else YAML. An old file stays until the new one is whole."""
    path = Path(path)
    data = to_dict(plan)
    text = json.dumps(data, indent=2) + "\n" if path.suffix == ".json" else dump_yaml(data)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None


class _Dumper(yaml.SafeDumper):
    """Mappings in blocks, short lists on one line."""


def _flow_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    flat = all(not isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat and len(str(data)) < 90)


_Dumper.add_representer(list, _flow_list)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def dump_yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def _group(layers: Sequence[LayerPlacement]) -> list[_Layers]:
    """Layers that are placed alike, together."""
    alike: dict[LayerPlacement, list[int]] = {}
    for layer, place in enumerate(layers):
        alike.setdefault(place, []).append(layer)
    groups = []
    for place, numbers in alike.items():
        runs = [(part, len(list(run))) for part, run in groupby(place.ffn)]
        parts = [_Parts(parts=n, weights=p.weights, processor=p.processor) for p, n in runs]
        groups.append(_Layers(layers=_ranges(numbers), attention=place.attention, ffn=parts))
    return groups


def _ranges(numbers: Sequence[int]) -> str:
    """ "0-3 7 9-11"."""
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return " ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _ungroup(groups: Sequence[_Layers], target: Model, where: str) -> tuple[LayerPlacement, ...]:
    placed: dict[int, LayerPlacement] = {}
    where = f"{where}: placement"
    for group in groups:
        most = max(layer_units(target, kind).parts for kind in target.ffn_kinds)
        if any(not 1 <= p.parts <= most for p in group.ffn):
            raise InputError(f"layers {group.layers!r} name a number of FFN parts that is not 1 to {most}", where=where)
        ffn = tuple(PartPlacement(p.weights, p.processor) for p in group.ffn for _ in range(p.parts))
        for word in group.layers.split():
            first, _, last = word.partition("-")
            if not first.isdecimal() or not (last or first).isdecimal():
                raise InputError(f"layers {group.layers!r} is not like '0-3 7'", where=where)
            for layer in range(int(first), min(int(last or first), target.layers) + 1):
                if layer in placed:
                    raise InputError(f"layer {layer} is placed twice", where=where)
                placed[layer] = LayerPlacement(group.attention, ffn)
    if sorted(placed) != list(range(target.layers)):
        wrong = sorted(set(placed) ^ set(range(target.layers)))[0]
        problem = "is not placed" if wrong < target.layers else f"does not exist in {target.name!r}"
        raise InputError(f"layer {wrong} {problem}", where=where)
    for layer, place in sorted(placed.items()):
        parts = layer_units(target, target.layer_ffn(layer)).parts
        if len(place.ffn) != parts:
            raise InputError(f"layer {layer} places {len(place.ffn)} FFN parts of {parts}", where=where)
    return tuple(placed[layer] for layer in range(target.layers))


def _check(case: Case, decision: Decision, where: str) -> None:
    """A plan that nobody could run is bad input."""
    policy, gpu = decision.policy, case.machine.gpu is not None
    for name in ("batch", "batches", "prefill_batch", "verify_micro_batches", "prefill_micro_batches"):
        if getattr(policy, name) < 1:
            raise InputError(f"policy.{name} is {getattr(policy, name)}", where=where, hint="it must be 1 or more")
    if policy.batches != BATCHES[decision.strategy]:
        wanted = f"{decision.strategy} has {BATCHES[decision.strategy]} in flight"
        raise InputError(f"policy.batches is {policy.batches}", where=where, hint=wanted)
    if max(policy.verify_micro_batches, policy.draft.micro_batch if policy.draft else 1) > policy.batch:
        raise InputError(f"a micro-batch policy does not fit a batch of {policy.batch}", where=where)
    if policy.draft is not None and policy.draft.kv == "vram" and policy.draft.processor == "cpu":
        raise InputError("policy.draft keeps its KV in vram and computes on the cpu", where=where)
    if policy.gamma < 0 or policy.ring_slots < 0:
        raise InputError("policy.gamma and policy.ring_slots must be 0 or more", where=where)
    if policy.gamma > 0 and (case.draft is None or policy.draft is None):
        raise InputError(f"policy.gamma is {policy.gamma} but there is no draft", where=where)
    if policy.draft is not None:
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


def _check_processors(place: LayerPlacement, where: str) -> None:
    """What the CPU computes has to lie beside it."""
    a = place.attention
    if a.projections == "cpu" and (a.processor != "cpu" or a.weights == "vram"):
        raise InputError("projections on the cpu need the core there and weights in RAM", where=f"{where}: placement")
    if a.processor == "cpu" and a.kv == "vram":
        raise InputError("attention on the cpu needs its kv in ram", where=f"{where}: placement")
    if any(part.processor == "cpu" and part.weights == "vram" for part in place.ffn):
        raise InputError("an FFN part on the cpu has its weights in vram", where=f"{where}: placement")
