"""The search for the best candidate: bounds for all, placements for a few, simulated jobs for the best of those.

Seeds spread over strategies, draft lengths and batches are placed; from the best of them, with speculation and without,
the search climbs along the grids by the time that the placement program promises. The best few are simulated, and from
the winner it climbs once more, in finer steps and by simulated throughput. Nothing is placed whose roofline bound lies
below what is already promised. Limits are counts, not seconds, so that answers repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from specsim.case import Case
from specsim.decision import Decision
from specsim.planner.candidates import (
    GAMMAS,
    MOST_CUTS,
    RING_SLOTS,
    Candidate,
    Fixed,
    candidates,
    finer,
    least_demanding,
    make,
)
from specsim.planner.evaluate import Evaluator
from specsim.planner.grid import Grid
from specsim.planner.problem import Placed
from specsim.simulator.job import JobResult

PLACEMENTS: Final = 60
SIMULATIONS: Final = 4
#: simulations of neighbours of the best
CLIMBS: Final = 12
#: a kind of plan (speculative or not) that reaches less than this share of the best is not climbed any further
BEHIND: Final = 0.9
#: batches below this are changed by whole sequences too
SMALL: Final = 8
#: draft lengths, and shares of the requests in flight, that the search starts from
SEED_GAMMAS: Final = (0, 4, 10)
SEED_SHARES: Final = (1, 8, 64)
#: promises may be too high: a candidate is passed over when its bound is below this share of the best promise
TRUST: Final = 0.9
#: a neighbour is simulated if it promises to take at most this share of the best plan's promise
ALIKE: Final = 1.02

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
    of any plan on the grids; `gap` by how much the roofline of what was not placed exceeds the best."""

    found: tuple[Found, ...]
    bound: float
    gap: float
    candidates: int
    feasible: int
    seconds: float


@dataclass
class Search:
    """One search over one case."""

    case: Case
    fixed: Fixed = field(default_factory=Fixed)
    progress: Progress | None = None
    placements: int = PLACEMENTS
    simulations: int = SIMULATIONS
    speculate: bool = False  # look at speculative plans only
    survey: bool = True  # see to it that every kind of plan is heard

    def __post_init__(self) -> None:
        self.evaluator = Evaluator(self.case, self.fixed)
        self._found: dict[Candidate, Found] = {}
        self._bounds: dict[Candidate, float] = {}
        self._placed: dict[Candidate, Placed | None] = {}
        self._tokens = float(self.case.workload.requests * self.case.workload.output_tokens)

    def run(self) -> SearchResult:
        start = time.perf_counter()
        everyone = [c for c in candidates(self.case, self.fixed) if c.policy.gamma or not self.speculate]
        self._say(f"bounding {len(everyone)} policies")
        self._bounds = {c: self._tokens / self.evaluator.bound_seconds(c) for c in everyone}
        grid = Grid.of(everyone)
        requests = self.case.workload.requests
        for shares in (SEED_SHARES, (requests,)):
            if not self._promising():  # where many sequences do not fit, a single one may
                for seed in grid.seeds(requests, SEED_GAMMAS, shares):
                    self._promise(seed)
        for speculative in (True, False):
            self._climb_grid(grid, speculative)
        for speculative in (True, False):  # the promise does not see tails, so each kind is heard
            kind = [c for c in self._promising() if (c.policy.gamma > 0) == speculative]
            for candidate in kind[: (self.simulations + 1) // 2]:
                self._simulate(candidate)
        if self.survey or not self._found:
            self._hear_all(everyone)
        if not self._found:
            self._last_resort()
        for speculative in (True, False):
            self._climb(speculative)
        found = tuple(sorted(self._found.values(), key=lambda f: -f.tokens_per_second))
        best = found[0].tokens_per_second if found else 0.0
        left = max((bound for c, bound in self._bounds.items() if c not in self._placed), default=0.0)
        return SearchResult(
            found,
            max([best, *self._bounds.values()]),
            max(0.0, left / best - 1) if best else 0.0,
            len(everyone),
            sum(placed is not None for placed in self._placed.values()),
            time.perf_counter() - start,
        )

    def _promise(self, candidate: Candidate) -> float:
        """Tokens per second that the candidate's placement promises; 0 where nothing fits or it is not worth a look."""
        if candidate not in self._placed:
            # Of its own kind only: a climb must not end at a step that another kind beats, as higher ones may not.
            kind = (p for c, p in self._placed.items() if (c.policy.gamma > 0) == (candidate.policy.gamma > 0))
            best = max((self._tokens / p.seconds for p in kind if p is not None), default=0.0)
            if self._bounds.get(candidate, best) < TRUST * best or len(self._placed) >= self.placements:
                return 0.0
        placed = self._place(candidate)
        return 0.0 if placed is None else self._tokens / placed.seconds

    def _climb_grid(self, grid: Grid, speculative: bool) -> None:
        """Along the grid from the most promising candidate, with speculation or without, while promises rise."""
        known = [c for c in self._promising() if (c.policy.gamma > 0) == speculative]
        while known:
            best = known[0]
            promises = {c: self._promise(c) for c in grid.neighbours(best) if (c.policy.gamma > 0) == speculative}
            better = max(promises, key=promises.__getitem__, default=best)
            if promises.get(better, 0.0) <= self._promise(best):
                return
            known = [better]

    def _promising(self) -> list[Candidate]:
        """Candidates that fit, the most promising first."""
        fits = {c: placed.seconds for c, placed in self._placed.items() if placed is not None}
        return sorted(fits, key=fits.__getitem__)

    def _hear_all(self, everyone: list[Candidate]) -> None:
        """Simulate one plan of every kind: each strategy, with speculation and without. Of a kind that was never worth
        placing, the one with the highest bound that fits."""
        groups: dict[tuple[str, bool], list[Candidate]] = {}
        for candidate in (*self._promising(), *sorted(everyone, key=lambda c: -self._bounds[c])):
            groups.setdefault((candidate.strategy, candidate.policy.gamma > 0), []).append(candidate)
        for group in groups.values():
            if any(c in self._found for c in group):
                continue
            fitting = next((c for c in group[:4] if self._bounds[c] > 0 and self._place(c) is not None), None)
            if fitting is not None:
                self._simulate(fitting)

    def _last_resort(self) -> None:
        """The first of the least demanding candidates that fits; nothing fits where none of them does."""
        for candidate in least_demanding(self.case, self.fixed):
            if (candidate.policy.gamma or not self.speculate) and self._place(candidate) is not None:
                self._simulate(candidate)
                return

    def _climb(self, speculative: bool) -> None:
        """From the best plan of a kind to its best neighbour, until no neighbour is better."""
        left = CLIMBS
        while True:
            kind = [f for c, f in self._found.items() if (c.policy.gamma > 0) == speculative]
            if not kind:
                return
            best = max(kind, key=lambda f: f.tokens_per_second)
            if best.tokens_per_second < BEHIND * self._best():
                return
            own = self._placed[best.candidate]
            assert own is not None
            for candidate in self._neighbours(best.candidate):
                if candidate in self._found:
                    continue
                placed = self._place(candidate)
                # Promises of neighbours are wrong by about as much, so they can be compared.
                if placed is not None and placed.seconds < ALIKE * own.seconds and left > 0:
                    left -= 1
                    self._simulate(candidate)
            again = (f.tokens_per_second for c, f in self._found.items() if (c.policy.gamma > 0) == speculative)
            if max(again) <= best.tokens_per_second:
                return

    def _neighbours(self, c: Candidate) -> Iterator[Candidate]:
        """One finer step along one axis: ring, gamma, batch, prefill sweeps."""
        policy, fixed = c.policy, self.fixed

        def near(
            gamma: int = policy.gamma, batch: int = policy.batch, slots: int = policy.ring_slots, cuts: float = c.cuts
        ) -> Candidate:
            numbers = gamma, batch, slots, policy.expert_fetch
            return make(self.case, c.strategy, *numbers, fixed, cuts, policy.chunk_tokens)

        if fixed.prefill_batch is None:
            for cuts in (2 * c.cuts, c.cuts / 2):
                if 1 <= cuts <= MOST_CUTS and near(cuts=cuts).policy != policy:
                    yield near(cuts=cuts)
        if (finer_chunks := finer(self.case, fixed, c)) is not None:
            yield finer_chunks
        if fixed.ring_slots is None and policy.ring_slots:
            for slots in (0, *RING_SLOTS):
                if slots != policy.ring_slots:
                    yield near(slots=slots)
        if fixed.gamma is None and policy.gamma:
            below = [gamma for gamma in GAMMAS if gamma < policy.gamma][-1:]
            above = [gamma for gamma in GAMMAS if gamma > policy.gamma][:1]
            for gamma in below + above:
                yield near(gamma=gamma)
        if fixed.batch is None:
            most = -(-self.case.workload.requests // policy.batches)
            sizes = {round(policy.batch * f) for f in (0.8, 0.9, 1.1, 1.25)}
            if policy.batch < SMALL:  # where a tenth is less than one
                sizes |= {policy.batch - 1, policy.batch + 1, 2 * policy.batch}
            for size in sorted(sizes - {policy.batch}):
                if 1 <= size <= most:
                    yield near(batch=size)

    def _place(self, candidate: Candidate) -> Placed | None:
        if candidate not in self._placed:
            self._say(f"placing {candidate.label}")
            self._placed[candidate] = self.evaluator.place(candidate)
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
