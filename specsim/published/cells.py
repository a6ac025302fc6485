"""The published measurements: a cell per model, environment, workload and system, with the policy that it ran under."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from specsim import api, profiles
from specsim.acceptance import Acceptance
from specsim.case import Case
from specsim.systems import specoffload
from specsim.systems.policies import simple_policy
from specsim.systems.system import Policy
from specsim.systems.table import SYSTEMS

#: the draft of each target; "a small Llama 3" is all that is said of the last
DRAFTS: Final = {"mixtral-8x7b": "mistral-7b", "mixtral-8x22b": "mistral-7b", "llama-3.3-70b": "llama-3.2-1b"}
#: what nobody published the policies of
UNKNOWN_POLICIES: Final = "llama-3.3-70b"
#: batches per block of FlexGen, which is not stated: with one, its speed would take more than the link's raw rate
FLEXGEN_BLOCKS: Final = 2
#: candidates and sequences that draft together where no policy is public: as in most of those that are
ASSUMED_GAMMA: Final = 6
ASSUMED_DRAFT_BATCH: Final = 10
#: output tokens of everything that is fitted to
FITTED_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Cell:
    """One bar of the published chart; `tokens_per_s` as the system counts them."""

    model: str
    environment: str
    workload: str
    system: str
    tokens_per_s: float

    @property
    def key(self) -> str:
        return f"{self.system}/{self.model}/{self.workload}"


@lru_cache(maxsize=1)
def cells() -> tuple[Cell, ...]:
    """All of them, in the order of the published table."""
    return tuple(
        Cell(r["model"], r["environment"], r["workload"], r["system"], float(r["tokens_per_s"]))
        for r in _rows("published_throughput.csv")
        if int(r["output_tokens"]) == FITTED_TOKENS
    )


@lru_cache(maxsize=1)
def _policies() -> dict[tuple[str, str, str], dict[str, str]]:
    return {(r["system"], r["model"], r["workload"]): r for r in _rows("published_policies.csv")}


@lru_cache(maxsize=512)
def policy(cell: Cell, batch: float | None = None) -> Policy:
    """The published policy, or for want of one that of `batch` sequences.

    It is the same for every output length: nothing says that batches were chosen anew.
    """
    row = _policies().get((cell.system, cell.model, cell.workload))
    if row is not None:
        batch = float(row["batch"])
    assert batch is not None, f"no policy is published for {cell.key}: give its batch"
    question = case(cell, FITTED_TOKENS)
    if cell.system == "flexgen":
        return simple_policy(question, batch, FLEXGEN_BLOCKS)
    if cell.system != "specoffload":
        return simple_policy(question, batch)
    numbers = (batch / 4, ASSUMED_GAMMA, ASSUMED_DRAFT_BATCH)
    if row is not None:
        numbers = (int(row["prefill_batch"]), int(row["draft_tokens"]), int(row["draft_batch"]))
    prefill_batch, gamma, draft_batch = numbers
    return specoffload.policy(question, batch, prefill_batch=prefill_batch, gamma=gamma, draft_batch=draft_batch)


@lru_cache(maxsize=512)
def case(cell: Cell, output_tokens: int) -> Case:
    """The question that the cell answers, on the machine as its datasheets have it."""
    question = api.case(machine=cell.environment, target=cell.model, workload=cell.workload)
    if SYSTEMS[cell.system].drafts:
        draft = api.model(DRAFTS[cell.model])
        question = replace(question, draft=draft, acceptance=Acceptance.constant(0.5, "assumed", "until it is fitted"))
    return replace(question, workload=replace(question.workload, output_tokens=output_tokens))


def _rows(name: str) -> list[dict[str, str]]:
    with (profiles.root() / "published" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
