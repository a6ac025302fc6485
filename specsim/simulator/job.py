"""A whole job: every request from its prefill to its last token, round by round.

Each round is priced by simulating the schedule at that round's shape: how many sequences are left, how long their
contexts are, how many newcomers bring their prompts. Shapes are rounded to the nearest of a geometric grid, so that a
job of thousands of rounds simulates a few dozen; the tests compare grids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specsim.case import Case
from specsim.decision import Decision
from specsim.errors import InputError
from specsim.positions import join_tokens
from specsim.schedule.lower import lower_prefill, lower_rounds, steady_round
from specsim.schedule.round import RoundShape
from specsim.simulator import pricing
from specsim.simulator.progress import gains, rounds_needed
from specsim.workload import prompt_lengths

#: ratio of neighbouring row counts on the grid of round shapes
GRID = 1.04


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a job: when it started and ended, who took part, and the useful tokens that it gave."""

    start_s: float
    end_s: float
    rows: int
    context: float
    joining: float
    tokens: int


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a job takes. `tokens` are useful tokens; `finish_s[i]` is when request i got its last one."""

    tokens: int
    prefill_s: float
    decode_s: float
    rounds: tuple[Round, ...]
    finish_s: tuple[float, ...]

    @property
    def makespan_s(self) -> float:
        return self.prefill_s + self.decode_s

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.makespan_s

    def to_frame(self) -> Any:
        """The rounds as a pandas DataFrame, a row each."""
        import pandas as pd  # only here: importing pandas takes longer than planning

        return pd.DataFrame([{name: getattr(r, name) for name in Round.__slots__} for r in self.rounds])


@dataclass(slots=True)
class RoundPricer:
    """Seconds of a round of a decision, by shape; every shape of the grid is simulated at most once."""

    case: Case
    decision: Decision
    grid: float = GRID
    _first: dict[RoundShape, float] = field(default_factory=dict)
    _steady: dict[RoundShape, float] = field(default_factory=dict)

    def steady(self, shape: RoundShape) -> float:
        """A round that follows one like it."""
        on_grid = self._snap(shape)
        if on_grid not in self._steady:
            self._simulate(on_grid)
        return self._steady[on_grid]

    def first(self, shape: RoundShape) -> float:
        """The first round, which finds the ring empty."""
        on_grid = self._snap(shape)
        if on_grid not in self._first:
            self._simulate(on_grid)
        return self._first[on_grid]

    def _simulate(self, shape: RoundShape) -> None:
        rounds, steady = steady_round(self.decision.policy)
        graph = lower_rounds(self.case, self.decision, shape, rounds)
        _, ends = pricing.run(graph, self.case.machine)
        ended = [max(ends[task] for task in tasks) for tasks in graph.round_ends]
        self._first[shape], self._steady[shape] = ended[0], ended[steady] - ended[steady - 1]

    def _snap(self, shape: RoundShape) -> RoundShape:
        """Rows are anchored at a full house, contexts at the mean prompt; contexts matter less, and move less."""
        finer = 1 + (self.grid - 1) / 2
        rows = _snap(shape.rows, float(self.decision.policy.in_flight), self.grid)
        for tail in self.decision.tails:  # rounding must not move a round into a tail, or out of it
            beyond = math.nextafter(tail.rows, math.inf)
            rows = min(rows, tail.rows) if shape.rows <= tail.rows else max(rows, beyond)
        context = _snap(shape.context, self.case.workload.prompt_tokens_mean, finer)
        joining = _snap(shape.joining, join_tokens(self.case.workload), self.grid**2) if shape.joining else 0.0
        return RoundShape(rows, context, joining)


def _snap(value: float, anchor: float, ratio: float) -> float:
    """The nearest anchor * ratio^k."""
    return anchor * ratio ** round(math.log(max(1.0, value) / anchor) / math.log(ratio))


def simulate_job(case: Case, decision: Decision, *, grid: float = GRID, seed: int | None = None) -> JobResult:
    """Run every request of the case's workload. The first token of each comes from its prefill. Without a `seed` the
    luck of the draws is typical.

    Without `refill`, a batch is decoded until its slowest request ends before the next is prefilled. With it, freed
    places are taken by waiting requests, whose prompts ride along with verify passes. Where caches are capped, requests
    take turns in them.
    """
    workload, policy = case.workload, decision.policy
    lengths = prompt_lengths(workload).astype(float)
    wanted = workload.output_tokens - 1
    gained = gains(case.acceptance, policy.gamma, workload.requests, wanted, seed)
    needed = rounds_needed(case.acceptance, policy.gamma, workload.requests, wanted, seed)
    pricer = RoundPricer(case, decision, grid)
    rounds: list[Round] = []
    finish = np.zeros(workload.requests)
    clock = prefill_s = 0.0
    line = _Line(case, decision, lengths, gained)
    while line.waiting.size:
        active = line.wave()
        took = prefill_seconds(case, decision, line.brought(active))
        prefill_s += took
        clock += took
        line.started[active] = True
        finish[active] = clock
        active = active[needed[active] > line.age[active]]
        active, joined = line.next_round(active)
        fresh = True
        while active.size or joined.size:
            before = line.gained_before(active)
            brought = line.brought(joined)
            context = float((lengths[active] + before).mean()) if active.size else float(brought.mean())
            shape = RoundShape(float(active.size), context, float(brought.sum()))
            seconds = pricer.first(shape) if fresh else pricer.steady(shape)
            fresh = False
            tokens = int((gained[active, line.age[active]] - before).sum() + (~line.started[joined]).sum())
            rounds.append(Round(clock, clock + seconds, active.size, context, shape.joining, tokens))
            clock += seconds
            line.age[active] += 1
            line.started[joined] = True
            taken = np.concatenate([active, joined])  # a newcomer's first pass gives it its first token
            finish[taken[line.age[taken] >= needed[taken]]] = clock
            active, joined = line.next_round(taken[line.age[taken] < needed[taken]])
    tokens = workload.requests * workload.output_tokens
    return JobResult(tokens, prefill_s, clock - prefill_s, tuple(rounds), tuple(finish))


def prefill_seconds(case: Case, decision: Decision, lengths: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Prefill and transition of the prompts of the given lengths."""
    graph = lower_prefill(case, decision, lengths.tolist())
    _, ends = pricing.run(graph, case.machine)
    return max(ends)


class _Line:
    """Who waits, in order, and who may be in flight: as many as there are places for, and as the caches have room for.

    Where caches may hold less than all may need, the youngest goes back in line when they are full, and what it had is
    read again when its turn comes (see `executor.batches`). Batches share the room here as if they were one.
    """

    def __init__(self, case: Case, decision: Decision, lengths: Any, gained: Any) -> None:
        self.policy, self.lengths = decision.policy, lengths
        self.gained = np.concatenate([np.zeros((len(lengths), 1), gained.dtype), gained], axis=1)  # after no round too
        self.most_tokens = join_tokens(case.workload, self.policy) * self.policy.batches
        self.longest = lengths + case.workload.output_tokens  # positions of each at its end
        self.room = math.inf if self.policy.kv_positions is None else self.policy.kv_positions
        if self.room < max(self.longest):
            what = f"the caches have {self.room} positions, and a request may need {max(self.longest):.0f}"
            raise InputError(what, where="kv_positions", hint="plan again with a larger --kv")
        self.waiting = np.arange(len(lengths))
        self.age = np.zeros(len(lengths), dtype=np.int64)  # rounds that each request has had
        self.started = np.zeros(len(lengths), dtype=bool)  # whether it has its first token

    def gained_before(self, ids: Any) -> Any:
        """Tokens that requests have from their rounds, the first one not counted."""
        return self.gained[ids, self.age[ids]]

    def brought(self, ids: Any) -> Any:
        """Tokens that requests bring to the pass that they join with."""
        return self.lengths[ids] + np.where(self.started[ids], 1 + self.gained_before(ids), 0)

    def wave(self) -> Any:
        return self._admit(self.policy.in_flight, math.inf, 0.0)

    def next_round(self, active: Any) -> tuple[Any, Any]:
        """Who of the `active` is in the next round, and who joins it."""
        kept = np.sort(active) if math.isfinite(self.room) else active
        needs = self._needs(kept, 0)
        fits = np.cumsum(needs) <= self.room
        if not fits.all():
            self.waiting = np.sort(np.concatenate([self.waiting, kept[~fits]]))
            kept, needs = kept[fits], needs[fits]
        places = self.policy.in_flight - kept.size if self.policy.refill else 0
        return kept, self._admit(places, self.most_tokens, float(needs.sum()))

    def _needs(self, ids: Any, more: int) -> Any:
        """Positions for a round of candidates."""
        return np.minimum(self.longest[ids], self.brought(ids) + more + self.policy.gamma)

    def _admit(self, places: int, most_tokens: float, held: float) -> Any:
        """The next in line that fit the free places, the tokens that one pass may take (or one), and the caches."""
        first = self.waiting[:places]
        by_tokens = int(np.searchsorted(np.cumsum(self.brought(first)), most_tokens, side="right"))
        by_room = int(np.searchsorted(held + np.cumsum(self._needs(first, 1)), self.room, side="right"))
        count = min(len(first), max(1, by_tokens), by_room)
        self.waiting = self.waiting[count:]
        return first[:count]
