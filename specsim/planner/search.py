"""Best-first search over candidates: bound, then placement, then simulation, each only for what may still win.

A candidate's promise is its bound until it is placed and the program's own time afterwards. The most promising is
refined one step at a time; the search ends when nothing left promises more than the best plan simulated, or when it
has refined as many as it may (`PLACEMENTS`, `SIMULATIONS`; counts, not seconds, so that answers repeat). Then the
neighbours of the best are tried until none is better.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from specsim.case import Case
from specsim.decision import Decision
from specsim.planner.candidates import GAMMAS, RING_SLOTS, Candidate, Fixed, candidates, make
from specsim.planner.evaluate import Evaluator
from specsim.planner.placement import Placed
from specsim.simulator.job import JobResult

PLACEMENTS: Final = 60
SIMULATIONS: Final = 16
#: a candidate that promises less than this much more is not worth refining
WORTH: Final = 1.002

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate that was placed and simulated. `tokens_per_second` counts useful tokens."""

    candidate: Candidate
    decision: Decision
    job: JobResult

    @property
    def tokens_per_second(self) -> float:
        return self.job.tokens_per_second


@dataclass(frozen=True, slots=True)
class SearchResult:
    """All that a search simulated, best first; empty where nothing fits. `bound` is an upper bound on the throughput
    of any plan on the grids; `gap` how much more than the best the candidates that were not refined promise."""

    found: tuple[Found, ...]
    bound: float
    gap: float
    candidates: int
    feasible: int
    infeasible: tuple[Candidate, ...]
    seconds: float


@dataclass
class Search:
    """One search over one case."""

    case: Case
    fixed: Fixed = field(default_factory=Fixed)
    progress: Progress | None = None
    placements: int = PLACEMENTS
    simulations: int = SIMULATIONS

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(self.case, self.fixed)
        self._found: dict[Candidate, Found] = {}
        self._infeasible: dict[Candidate, None] = {}
        self._placed: dict[Candidate, Placed | None] = {}
        self._tokens = float(self.case.workload.requests * self.case.workload.output_tokens)

    def run(self) -> SearchResult:
        start = time.perf_counter()
        everyone = list(candidates(self.case, self.fixed))
        promises = self._bounds(everyone)
        remaining = self._refine(promises)
        for group in _groups(promises):
            self._first_that_fits(group)
        self._climb()
        found = tuple(sorted(self._found.values(), key=lambda f: -f.tokens_per_second))
        best = found[0].tokens_per_second if found else 0.0
        bound = max([promise for promise, _ in promises], default=0.0)
        return SearchResult(
            found,
            max(bound, best),
            max(0.0, remaining / best - 1) if best else 0.0,
            len(everyone),
            sum(placed is not None for placed in self._placed.values()),
            tuple(self._infeasible),
            time.perf_counter() - start,
        )

    def _bounds(self, everyone: list[Candidate]) -> list[tuple[float, Candidate]]:
        """Every candidate with the throughput that it cannot exceed, most promising first."""
        self._say(f"bounding {len(everyone)} policies")
        promises = [(self._tokens / self.evaluator.bound_seconds(c), c) for c in everyone]
        return sorted(promises, key=lambda pair: -pair[0])

    def _refine(self, promises: list[tuple[float, Candidate]]) -> float:
        """Refine the most promising until none can win; returns the most that anything left still promises."""
        heap = [(-promise, order, c) for order, (promise, c) in enumerate(promises) if promise > 0]
        heapq.heapify(heap)
        placements = simulations = 0
        while heap:
            promise, order, candidate = heapq.heappop(heap)
            if -promise < WORTH * self._best():
                return -promise
            if candidate not in self._placed:
                if placements == self.placements:
                    return -promise
                placements += 1
                placed = self._place(candidate)
                if placed is not None:
                    heapq.heappush(heap, (max(promise, -self._tokens / placed.seconds), order, candidate))
            else:
                if simulations == self.simulations:
                    return -promise
                simulations += 1
                self._simulate(candidate)
        return 0.0

    def _first_that_fits(self, group: list[Candidate]) -> None:
        """See to it that every group of trivial answers is represented: its most promising candidate that fits."""
        if any(c in self._found for c in group):
            return
        for candidate in group[:4]:
            if self._place(candidate) is not None:
                self._simulate(candidate)
                return

    def _climb(self) -> None:
        """From the best plan to its best neighbour, until no neighbour is better."""
        while self._found:
            best = max(self._found.values(), key=lambda f: f.tokens_per_second)
            for candidate in self._neighbours(best.candidate):
                if candidate in self._found or candidate in self._infeasible:
                    continue
                placed = self._place(candidate)
                if placed is not None and self._tokens / placed.seconds > WORTH * self._best():
                    self._simulate(candidate)
            if self._best() <= best.tokens_per_second:
                return

    def _neighbours(self, c: Candidate) -> Iterator[Candidate]:
        policy, fixed = c.policy, self.fixed
        fetch = policy.expert_fetch
        if fixed.ring_slots is None and policy.ring_slots:
            for slots in (0, *RING_SLOTS):
                if slots != policy.ring_slots:
                    yield make(self.case, c.strategy, policy.gamma, policy.batch, slots, fetch, fixed)
        if fixed.gamma is None and policy.gamma:
            for gamma in (policy.gamma - 1, policy.gamma + 1):
                if gamma in GAMMAS:
                    yield make(self.case, c.strategy, gamma, policy.batch, policy.ring_slots, fetch, fixed)
        if fixed.batch is None:
            most = -(-self.case.workload.requests // policy.batches)
            for size in sorted({round(policy.batch * f) for f in (0.8, 0.9, 1.1, 1.25)} - {policy.batch, 0}):
                if size <= most:
                    yield make(self.case, c.strategy, policy.gamma, size, policy.ring_slots, fetch, fixed)

    def _place(self, candidate: Candidate) -> Placed | None:
        if candidate not in self._placed:
            self._say(f"placing {candidate.label}")
            self._placed[candidate] = self.evaluator.place(candidate)
            if self._placed[candidate] is None:
                self._infeasible[candidate] = None
        return self._placed[candidate]

    def _simulate(self, candidate: Candidate) -> None:
        placed = self._placed[candidate]
        assert placed is not None
        self._say(f"simulating {candidate.label}")
        decision = self.evaluator.with_tails(placed.decision)
        self._found[candidate] = Found(candidate, decision, self.evaluator.simulate(decision))

    def _best(self) -> float:
        return max((f.tokens_per_second for f in self._found.values()), default=0.0)

    def _say(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what)


def _groups(promises: list[tuple[float, Candidate]]) -> list[list[Candidate]]:
    """The trivial answers that every search has to hear: each strategy, with speculation and without."""
    groups: dict[tuple[str, bool], list[Candidate]] = {}
    for promise, candidate in promises:
        if promise > 0:
            groups.setdefault((candidate.strategy, candidate.policy.gamma > 0), []).append(candidate)
    return list(groups.values())
