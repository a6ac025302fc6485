"""Plan files (`specsim.plan/1`), written and read.

The file is complete: it carries the machine's facts and the models' sizes, so that it reads the same where the profiles
have changed. Keys that later versions add have defaults; keys that nobody knows are errors that name them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from specsim import machines
from specsim.acceptance import Acceptance
from specsim.answer import Plan, Predicted, Provenance, SearchInfo, Wire
from specsim.case import NGRAM, Case
from specsim.decision import Decision, LayerPlacement, Policy, StrategyName, Tail
from specsim.errors import InputError
from specsim.model import from_config, to_config
from specsim.partition import shard
from specsim.placementfile import Layers, check, group, ungroup
from specsim.wholefile import replace_whole
from specsim.workload import Workload
from specsim.yamlfile import read_yaml

SCHEMA: Final = "specsim.plan/1"


class _ModelFile(Wire, frozen=True):
    name: str
    config: dict[str, Any]


class _DraftFile(Wire, frozen=True):
    """A model has a `config`; the other kind of draft is n-gram drafting, which is called by that name."""

    name: str
    acceptance: list[float]
    acceptance_kind: str
    acceptance_source: str
    acceptance_spread: float = 0.0
    config: dict[str, Any] | None = None


class _WorkloadFile(Wire, frozen=True):
    name: str
    title: str
    prompt_tokens_mean: float
    prompt_tokens_max: int
    prompt_tokens_min: int
    output_tokens: int
    requests: int


class _TailFile(Wire, frozen=True):
    rows: int
    layers: list[Layers]


class _Placement(Wire, frozen=True):
    layers: list[Layers]
    tails: list[_TailFile] = msgspec.field(default_factory=list)


class _PlanFile(Wire, frozen=True):
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
    if case.acceptance is not None:
        draft = _DraftFile(
            name=NGRAM if case.draft is None else case.draft.name,
            config=None if case.draft is None else to_config(case.draft),
            acceptance=list(case.acceptance.hazards),
            acceptance_kind=case.acceptance.kind,
            acceptance_source=case.acceptance.source,
            acceptance_spread=case.acceptance.spread,
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
            layers=group(decision.layers),
            tails=[_TailFile(rows=tail.rows, layers=group(tail.layers)) for tail in decision.tails],
        ),
        predicted=plan.predicted,
        search=plan.search,
        provenance=plan.provenance,
    )
    written = dict(msgspec.to_builtins(file))
    if decision.policy.devices == 1:  # as ever, so that earlier versions read it too
        del written["policy"]["stages"], written["policy"]["tensor"]
    return written


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
        if file.draft.config is not None:
            draft = from_config(file.draft.config, name=file.draft.name, where=f"{where}: draft")
        elif file.draft.name != NGRAM:
            hint = f"only {NGRAM!r} is a draft without one"
            raise InputError(f"draft {file.draft.name!r} lacks its config", where=where, hint=hint)
        told = file.draft
        hazards = tuple(told.acceptance)
        acceptance = Acceptance(hazards, told.acceptance_kind, told.acceptance_source, told.acceptance_spread)
    case = Case(machine, target, Workload(**msgspec.to_builtins(file.workload)), draft, acceptance)

    share = shard(target, range(target.layers), max(1, file.policy.tensor))

    def placed(layers: list[Layers]) -> tuple[LayerPlacement, ...]:
        return ungroup(layers, share, file.policy.part_bytes, where)

    decision = Decision(
        file.strategy,
        file.policy,
        placed(file.placement.layers),
        tuple(Tail(tail.rows, placed(tail.layers)) for tail in file.placement.tails),
    )
    check(case, decision, where)
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
    try:
        replace_whole(path, text.encode("utf-8"))
    except OSError as error:
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
