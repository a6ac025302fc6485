"""Candidates as points of a grid: where a search starts, and which points lie next to one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from specsim.planner.candidates import Candidate

Point = tuple[str, int, int, str]  # strategy, sequences in a batch, gamma, fetching of experts


@dataclass(frozen=True, slots=True)
class Grid:
    """All candidates by point, and the values of each axis in rising order."""

    points: dict[Point, Candidate]
    batches: dict[str, tuple[int, ...]]  # by strategy
    gammas: tuple[int, ...]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Grid:
        points = {_point(c): c for c in candidates}
        strategies = dict.fromkeys(c.strategy for c in candidates)
        batches: dict[str, tuple[int, ...]] = {
            s: tuple(sorted({c.policy.batch for c in candidates if c.strategy == s})) for s in strategies
        }
        return cls(points, batches, tuple(sorted({c.policy.gamma for c in candidates})))

    def seeds(self, requests: int, gammas: Sequence[int], shares: Sequence[int]) -> list[Candidate]:
        """Points spread over every strategy: draft lengths near `gammas`, and in flight about `requests` / share."""
        found: dict[Candidate, None] = {}
        for strategy, batches in self.batches.items():
            for share in shares:
                for gamma in gammas:
                    in_flight = _nearest(batches, requests / share / self._batches_in_flight(strategy))
                    for candidate in self._at(strategy, in_flight, _nearest(self.gammas, gamma)):
                        found[candidate] = None
        return list(found)

    def neighbours(self, c: Candidate) -> Iterator[Candidate]:
        """One step along each axis: gamma, batch, fetching; and the other strategies with as many in flight."""
        strategy, batch, gamma, fetch = _point(c)
        steps = [(strategy, batch, g, fetch) for g in _beside(self.gammas, gamma)]
        steps += [(strategy, b, gamma, fetch) for b in _beside(self.batches[strategy], batch)]
        steps += [(strategy, batch, gamma, other) for other in ("all", "routed") if other != fetch]
        for other, batches in self.batches.items():
            if other != strategy:
                steps.append(
                    (other, _nearest(batches, c.policy.in_flight / self._batches_in_flight(other)), gamma, fetch)
                )
        yield from (self.points[step] for step in steps if step in self.points)

    def _at(self, strategy: str, batch: int, gamma: int) -> Iterator[Candidate]:
        for fetch in ("all", "routed"):
            if (strategy, batch, gamma, fetch) in self.points:
                yield self.points[strategy, batch, gamma, fetch]

    def _batches_in_flight(self, strategy: str) -> int:
        return next(c.policy.batches for point, c in self.points.items() if point[0] == strategy)


def _point(c: Candidate) -> Point:
    return c.strategy, c.policy.batch, c.policy.gamma, c.policy.expert_fetch


def _nearest(values: Sequence[int], wanted: float) -> int:
    """The value of least ratio to `wanted` (0 only for 0)."""
    return min(values, key=lambda v: max((v + 0.5) / (wanted + 0.5), (wanted + 0.5) / (v + 0.5)))


def _beside(values: Sequence[int], value: int) -> list[int]:
    i = values.index(value)
    return [values[n] for n in (i - 1, i + 1) if 0 <= n < len(values)]
