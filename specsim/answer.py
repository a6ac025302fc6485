"""The answer: question, decision, prediction and provenance in one value. `planfile` writes and reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from specsim.case import Case
from specsim.decision import Decision


class Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the file."""


class Predicted(Wire, frozen=True):
    """What the model says the plan will do. Tokens are useful tokens; `peak_bytes` is by phase and memory;
    `utilisation` by resource over one round in mid-job; `band` tokens/s at the ends of an assumed acceptance. `watts`
    are means over the job by part, from the wall, and make `joules_per_token`; files of before have none."""

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
    watts: dict[str, float] = {}
    joules_per_token: float | None = None


class RunnerUp(Wire, frozen=True):
    """A plan that lost: what it is, what it would do, and why it is slower."""

    plan: str
    tokens_per_second: float
    reason: str


class Upgrade(Wire, frozen=True):
    """A resource multiplied, and the gain of a plan made for that machine (at least: the policy was kept)."""

    resource: str
    factor: float
    gain: float


class SearchInfo(Wire, frozen=True):
    """How the plan was found. `gap`: by how much the roofline of what was not placed exceeds the plan."""

    candidates: int
    feasible: int
    seconds: float
    solver: str
    gap: float
    runners_up: list[RunnerUp] = []
    upgrades: list[Upgrade] = []


class Provenance(Wire, frozen=True):
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
