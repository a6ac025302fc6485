"""What a calibration may set: few efficiencies with a physical meaning, bounds, and a value expected beforehand.

All are positive and fitted as logarithms. `prior` is the machine profiles' default, `spread` by how much (in
logarithms) it may be off before that counts as much as a measurement that is off by `fit.SCATTER`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.published.cells import FITTED_TOKENS, UNKNOWN_POLICIES, Cell, case, policy
from specsim.systems.outcome import Laid, Outcome, Shares, lay, reaching, timed
from specsim.systems.policies import largest
from specsim.systems.system import Policy
from specsim.systems.table import SYSTEMS

#: the most of a link's raw rate that copies can reach: packet headers take the rest
MOST_OF_LINK: Final = 0.95
#: systems that compute products on the CPU, and those that attend over caches in RAM
ON_CPU, ATTENDS_IN_RAM = ("fiddler", "specoffload"), ("flexgen", "specoffload")

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name` has its scope in it: kind/environment, kind/system/environment, and the like."""

    name: str
    meaning: str
    prior: float
    spread: float
    low: float
    high: float


def parameters(fitted: Sequence[Cell]) -> tuple[Parameter, ...]:
    """Those that the cells depend on, by name."""
    found = {p.name: p for cell in fitted for p in _of(cell)}
    return tuple(found[name] for name in sorted(found))


def _of(cell: Cell) -> list[Parameter]:
    system, env, work = cell.system, cell.environment, cell.workload
    found = [
        Parameter("gpu", "share of the GPU's peak that large products reach", 0.70, 0.15, 0.4, 0.95),
        Parameter(f"link/{system}/{env}", "share of the link's raw rate that its copies reach", 0.5, 0.5, 0.08, 0.9),
        Parameter(f"session/{env}/{work}", "speed of copies in these runs over other workloads'", 1.0, 0.2, 0.4, 2.0),
    ]
    if system in ON_CPU:
        found.append(Parameter("cpu", "share of the CPUs' bf16 peak that products reach", 0.5, 0.7, 0.03, 0.9))
    if system in ATTENDS_IN_RAM:
        found.append(Parameter("dram", "share of DRAM bandwidth that work on caches reaches", 0.5, 0.5, 0.05, 0.9))
    if system == "specoffload":
        scope = cell.model if cell.model == UNKNOWN_POLICIES else f"{cell.model}/{work}"
        found.append(Parameter(f"acceptance/{scope}", "chance that a candidate is accepted", 0.75, 0.15, 0.3, 0.97))
    if cell.model == UNKNOWN_POLICIES:
        why = "speed of copies of its large dense matrices over those of experts"
        found.append(Parameter(f"pieces/{cell.model}", why, 1.0, 0.2, 0.5, 2.0))
        found.append(_batch(cell))
    return found


@lru_cache(maxsize=64)
def _batch(cell: Cell) -> Parameter:
    """The batch of a cell whose policy is not public: expected at half of what memory allows, as published ones are."""
    system = SYSTEMS[cell.system]

    def make(case: Case, batch: int) -> Policy:
        return policy(cell, float(batch))

    most = largest(case(cell, FITTED_TOKENS), system.memory, make).batch
    return Parameter(f"batch/{cell.key}", "sequences in a batch", most / 2, 0.5, 1.0, most)


def predict(cell: Cell, values: Values, output_tokens: int = FITTED_TOKENS) -> Outcome:
    """The cell's run at the parameters `values`; one that they lack has its prior value."""
    at = {p.name.partition("/")[0]: values.get(p.name, p.prior) for p in _of(cell)}
    link = min(MOST_OF_LINK, at["link"] * at["session"] * at.get("pieces", 1.0))
    shares = Shares(link=link, gpu=at["gpu"], cpu=at.get("cpu"), dram=at.get("dram"))
    return _run(cell, output_tokens, shares, at.get("acceptance"), at.get("batch"))


@lru_cache(maxsize=8192)
def _run(cell: Cell, tokens: int, shares: Shares, rate: float | None, batch: float | None) -> Outcome:
    question = case(cell, tokens)
    return timed(_laid(cell, tokens, rate, batch), question.on(reaching(question.machine, shares)))


@lru_cache(maxsize=1024)
def _laid(cell: Cell, tokens: int, rate: float | None, batch: float | None) -> Laid:
    question = case(cell, tokens)
    if rate is not None:
        question = replace(question, acceptance=Acceptance.constant(rate, "fitted", "to published throughput"))
    return lay(question, SYSTEMS[cell.system], policy(cell, batch))
