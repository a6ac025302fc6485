"""How near the predictions are: errors, winners, order, speed-ups, and what else was reported of those runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.stats import spearmanr

from specsim.published.cells import FITTED_TOKENS, UNKNOWN_POLICIES, Cell, cells
from specsim.published.parameters import Values, predict
from specsim.systems import flexgen
from specsim.systems.outcome import busy, run

#: busy share of the GPU in decode, as reported
UTILISATION: Final = {"accelerate": 0.072, "deepspeed": 0.082, "flexgen": 0.071, "fiddler": 0.131, "specoffload": 0.587}
#: VRAM that FlexGen was given, in GB, and how much faster it was with the larger, as reported
SHRINKING: Final = (("mixtral-8x7b", 22.67, 4.20, 0.13), ("mixtral-8x22b", 20.65, 7.15, 0.05))
#: mean speed-up of SpecOffload over FlexGen, as reported
SPEEDUP: Final = 2.55


@dataclass(frozen=True, slots=True)
class Row:
    """One cell predicted at an output length, tokens/s: as its system counts them, and useful ones only."""

    cell: Cell
    output_tokens: int
    counted: float
    useful: float

    @property
    def published(self) -> float | None:
        """What was reported, for the one output length of which that is known here."""
        return self.cell.tokens_per_s if self.output_tokens == FITTED_TOKENS else None

    @property
    def error(self) -> float | None:
        return None if self.published is None else self.counted / self.published - 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one group of cells: median absolute error, cells whose winner is right out of how many, and Spearman's rank
    correlation of predicted and published."""

    group: str
    cells: int
    median_error: float
    right_winners: int
    contests: int
    spearman: float


def rows(values: Values, output_tokens: Sequence[int]) -> list[Row]:
    """Every cell at every output length."""
    found = []
    for cell in cells():
        for tokens in output_tokens:
            done = predict(cell, values, tokens)
            found.append(Row(cell, tokens, done.counted_per_s, done.useful_per_s))
    return found


def summaries(table: Sequence[Row]) -> list[Summary]:
    """Of all cells, of those with known policies, and of the others apart. Only fitted lengths can be compared."""
    compared = [row for row in table if row.published is not None]
    if not compared:
        return []
    known = [row for row in compared if row.cell.model != UNKNOWN_POLICIES]
    unknown = [row for row in compared if row.cell.model == UNKNOWN_POLICIES]
    return [
        _summary("policies known", known),
        _summary(f"{UNKNOWN_POLICIES}, unknown", unknown),
        _summary("all", compared),
    ]


def _summary(group: str, table: Sequence[Row]) -> Summary:
    contests: dict[tuple[str, str], list[Row]] = {}
    for row in table:
        contests.setdefault((row.cell.model, row.cell.workload), []).append(row)
    right = sum(
        max(rival, key=lambda row: row.counted) is max(rival, key=lambda row: row.cell.tokens_per_s)
        for rival in contests.values()
    )
    errors = [abs(row.error) for row in table if row.error is not None]
    rank = spearmanr([row.counted for row in table], [row.cell.tokens_per_s for row in table]).statistic
    return Summary(group, len(table), float(np.median(errors)), right, len(contests), float(rank))


def speedups(table: Sequence[Row]) -> list[tuple[str, float, float]]:
    """(model, published, predicted) mean speed-up of SpecOffload over FlexGen over the workloads."""
    compared = {(r.cell.model, r.cell.workload, r.cell.system): r for r in table if r.published is not None}
    found = []
    for model in dict.fromkeys(model for model, _, _ in compared):
        works = [work for m, work, system in compared if (m, system) == (model, "specoffload")]
        pairs = [(compared[model, work, "specoffload"], compared[model, work, "flexgen"]) for work in works]
        published = float(np.mean([ours.cell.tokens_per_s / theirs.cell.tokens_per_s for ours, theirs in pairs]))
        found.append((model, published, float(np.mean([ours.counted / theirs.counted for ours, theirs in pairs]))))
    return found


def utilisation(values: Values, model: str = "mixtral-8x7b") -> list[tuple[str, float, float]]:
    """(system, reported, predicted) busy share of the GPU in decode, the mean over the workloads."""
    found = []
    for name, reported in UTILISATION.items():
        mine = [cell for cell in cells() if (cell.system, cell.model) == (name, model)]
        found.append((name, reported, float(np.mean([busy(predict(cell, values))["gpu"] for cell in mine]))))
    return found


def shrinking(values: Values, workload: str = "humaneval") -> list[tuple[str, float, float, float, float]]:
    """(model, GB, GB, reported, predicted) gain of FlexGen with the larger VRAM over the smaller."""
    found = []
    for model, large, small, reported in SHRINKING:
        cell = next(c for c in cells() if (c.system, c.model, c.workload) == ("flexgen", model, workload))
        at = predict(cell, values)
        machines = [replace(at.case.machine, vram_budget_bytes=gb * 1e9) for gb in (large, small)]
        fast, slow = (run(at.case.on(machine), flexgen.SYSTEM, at.policy).counted_per_s for machine in machines)
        found.append((model, large, small, reported, fast / slow - 1.0))
    return found
