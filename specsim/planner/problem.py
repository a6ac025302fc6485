"""The placement problem and its answers, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from specsim.case import Case
from specsim.decision import AttentionPlacement, Decision, DraftPolicy, PartPlacement, Policy
from specsim.planner.options import Loads, PassLoads


@dataclass(frozen=True, slots=True)
class DraftChoice:
    """One way to run the draft: loads of drafting for one batch, and of the transition after each prefill."""

    policy: DraftPolicy
    drafting: Loads
    transition: Loads


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """All that the program is made of. `slots` verify passes a round, each for `batches` / `slots` batches; `sweeps`
    target sweeps per prefill; `rounds` and `prefills` weigh the two phases."""

    case: Case
    strategy: str
    policy: Policy
    attention: tuple[AttentionPlacement, ...]
    parts: tuple[PartPlacement, ...]
    verify: PassLoads
    prefill: PassLoads
    drafts: tuple[DraftChoice, ...]
    slots: int
    sweeps: int
    rounds: float
    prefills: float
    thrift: float = 0.0  # what a second of load costs beside a second of time
    most_classes: int = 5
    whole_layers: bool = False  # all weights of a layer in one memory
    first: bool = True  # the stage, of several, that has the head


@dataclass(frozen=True, slots=True)
class Placed:
    """The program's answer: a complete decision, and the time that it promises, of which a round and a prefill."""

    decision: Decision
    seconds: float
    round_s: float = 0.0
    prefill_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Shortage:
    """No placement fits: the missing bytes of each memory in its worst phase, for the placement that misses least."""

    missing: Mapping[tuple[str, str], float] = field(default_factory=dict)  # (phase, memory) -> bytes
