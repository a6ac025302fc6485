"""Re-planning: from the plans of one question to that of a question that differs from it in numbers only.

A full search spreads its seeds over all that there is, as it knows nothing. Here the winners of a search of the first
question, made anew for the new numbers, are placed, and from the best of each kind, with speculation and without, it is
a few steps uphill. The answer depends on the two questions alone, not on what else was planned, or where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from specsim.case import Case
from specsim.decision import BATCHES, LEAST_CHUNK, StrategyName
from specsim.memory import peak_items, shortfall
from specsim.planner.candidates import (
    GAMMAS,
    MOST_CUTS,
    Candidate,
    Fixed,
    batch_sizes,
    finer,
    has_batches,
    like,
    make,
    most_batches,
)
from specsim.planner.evaluate import Evaluator
from specsim.planner.layouts import SEARCHED, search_all
from specsim.planner.problem import Placed
from specsim.planner.search import Found, SearchResult

#: climbs of each kind, each on another number of devices: as many as a search of several devices looks into
CLIMBS: Final = SEARCHED
#: a kind, speculative or not, is simulated if the other promises to take at least this share of its time: promises
#: do not see how few sequences a batch ends with, which costs plans that speculate more
HEARD: Final = {True: 0.95, False: 0.8}
#: a neighbour that is simulated too promises to take at most so much of the time
ALIKE: Final = 1.02
#: prefill sweeps may take so many times their share of the fast memory, if it has no better use: all of it
LEAST_CUTS: Final = 1 / 4
#: slots of the smallest ring that still overlaps
LEAST_RING: Final = 2
#: the schedule that is most like another
OTHER: Final[dict[str, StrategyName]] = {"serial": "merged", "merged": "serial"}
#: placements and simulations of a search that follows a change: three quarters of a plan's own placements
REPLAN: Final = (45, 6)
#: where acceptance is varied, plans start from what wins at a low one and at a high one
ENDS: Final = (0.3, 0.9)


@dataclass(frozen=True, slots=True)
class Carried:
    """What the search of a question leaves to those like it: candidates worth starting from, and the best plans."""

    case: Case
    fixed: Fixed
    candidates: tuple[Candidate, ...]
    best: tuple[Found, ...]


def carry(case: Case, fixed: Fixed, result: SearchResult) -> Carried:
    """The best plan of each kind, and on each number of devices, that a search of `case` found: which of these numbers
    is best changes with the links."""
    kept: list[Candidate] = []
    for speculative in (False, True):
        kind = [f for f in result.found if _speculates(f.candidate) == speculative]
        kept += {_split(f.candidate): f.candidate for f in reversed(kind)}.values()
    return Carried(case, fixed, tuple(kept), result.found[:1])


def together(carried: Sequence[Carried]) -> Carried:
    """What is left by all of several questions that differ in acceptance only."""
    candidates = dict.fromkeys(c for one in carried for c in one.candidates)
    best = tuple(found for one in carried for found in one.best)
    return Carried(carried[0].case, carried[0].fixed, tuple(candidates), best)


def replan(case: Case, fixed: Fixed, carried: Carried, *, speculate: bool = False) -> Found | None:
    """The best plan for `case` (the best that speculates) that lies near what was `carried` over; None where nothing
    fits at all."""
    walk = _Walk(case, fixed)
    requests = carried.case.workload.requests
    seeds = dict.fromkeys(made for seed in carried.candidates for made in _made(case, fixed, seed, requests))
    tops: list[Candidate] = []
    for speculative in (True,) if speculate else (False, True):
        kind = [c for c in seeds if _speculates(c) == speculative]
        able = [c for c in kind if walk.seconds(c) < math.inf] or walk.shrink(kind)
        first: dict[object, Candidate] = {}
        for c in sorted(able, key=walk.seconds):
            first.setdefault((c.strategy, *_split(c)), c)
        tops += map(walk.uphill, walk.few(list(first.values())))
    if not tops:
        placements, simulations = REPLAN
        found = search_all(case, fixed, None, placements, simulations, speculate=speculate, survey=False).found
        return found[0] if found else None
    least: dict[tuple[int, int], float] = {}
    for c in tops:
        least[_split(c)] = min(walk.seconds(c), least.get(_split(c), math.inf))
    tops = [c for c in tops if HEARD[_speculates(c)] * walk.seconds(c) <= least[_split(c)]]
    others = [
        other for c in tops for other in _others(case, fixed, c) if walk.seconds(other) <= ALIKE * walk.seconds(c)
    ]
    swept = [walk.chunks(walk.sweeps(c)) for c in tops]
    heard = [
        *map(walk.simulate, dict.fromkeys((*tops, *others, *swept))),
        *_as_it_was(walk, carried, speculate=speculate),
    ]
    return max(heard, key=lambda f: f.tokens_per_second)


class _Walk:
    """Placements of one question, each made once."""

    def __init__(self, case: Case, fixed: Fixed) -> None:
        self.case, self.fixed = case, fixed
        self.evaluator = Evaluator(case, fixed, sift=True)
        self.placed: dict[Candidate, Placed | None] = {}

    def seconds(self, candidate: Candidate) -> float:
        """What the candidate's placement promises; inf where none fits."""
        if candidate not in self.placed:
            self.placed[candidate] = self.evaluator.place(candidate)
        placed = self.placed[candidate]
        return math.inf if placed is None else placed.seconds

    def uphill(self, best: Candidate) -> Candidate:
        """From `best` along its gamma and batch, for as long as promises rise. A step is placed if the roofline, to
        which neighbours come about equally near, says that it is one up."""
        bound = self.evaluator.bound_seconds
        tried = {best}
        while True:
            floor = bound(best)
            steps = [c for c in _steps(self.case, self.fixed, best) if c not in tried and bound(c) < floor]
            tried.update(steps)
            better = [c for c in steps if self.seconds(c) < self.seconds(best)]
            if not better:
                return best
            best = min(better, key=self.seconds)

    def sweeps(self, best: Candidate) -> Candidate:
        """`best` with longer prefill sweeps, which take more of the memory, or shorter ones, for as long as promises
        rise."""
        c, fixed = best, like(self.fixed, best)
        for factor in (0.5, 2) if self.fixed.prefill_batch is None else ():
            while LEAST_CUTS <= (cuts := c.cuts * factor) <= MOST_CUTS:
                policy = c.policy
                numbers = policy.gamma, policy.batch, policy.ring_slots, policy.expert_fetch
                other = make(self.case, c.strategy, *numbers, fixed, cuts, policy.chunk_tokens)
                if other.policy == policy or self.seconds(other) >= self.seconds(c):
                    break
                c = other
        return c

    def chunks(self, best: Candidate) -> Candidate:
        """`best` with smaller chunks where they are large beside the memory, for as long as promises rise."""
        fixed = like(self.fixed, best)
        while (other := finer(self.case, fixed, best)) is not None and self.seconds(other) < self.seconds(best):
            best = other
        return best

    def shrink(self, seeds: Sequence[Candidate]) -> list[Candidate]:
        """What fits of the seeds with the smallest ring that overlaps, their gamma or the least, and prefill sweeps
        cut finer: with their batches, or half of them, and so on until something does."""
        most = max((seed.policy.batch for seed in seeds), default=0)
        for halvings in range(most.bit_length() if self.fixed.batch is None else 1):
            smaller = [list(_shrunk(self.case, self.fixed, seed, halvings)) for seed in seeds]
            if any(self.seconds(each[-1]) < math.inf for each in smaller):  # the last one takes the least
                return [c for each in smaller for c in each if self.seconds(c) < math.inf]
        return []

    def few(self, seeds: Sequence[Candidate]) -> list[Candidate]:
        """Those on the `CLIMBS` best numbers of devices, by simulation: promises do not see well what devices
        say to one another."""
        splits = dict.fromkeys(map(_split, seeds))
        if len(splits) > CLIMBS:
            heard = sorted(map(self.simulate, seeds), key=lambda f: -f.tokens_per_second)
            splits = dict.fromkeys(list(dict.fromkeys(_split(f.candidate) for f in heard))[:CLIMBS])
        return [c for c in seeds if _split(c) in splits]

    def simulate(self, candidate: Candidate) -> Found:
        placed = self.placed[candidate]
        assert placed is not None, "only what fits is simulated"
        decision = self.evaluator.with_tails(placed.decision)
        return Found(candidate, decision, self.evaluator.simulate(decision))


def _as_it_was(walk: _Walk, carried: Carried, *, speculate: bool) -> Iterator[Found]:
    """The carried plans themselves, for the same work on a machine that holds them: so none that is better in
    everything is told to be slower. Where RAM is no less, what may be page-locked is no less either."""
    case, base = walk.case, carried.case
    if _asked(case, walk.fixed) != _asked(base, carried.fixed):
        return
    if case.machine.ram_budget_bytes < base.machine.ram_budget_bytes:
        return
    for best in carried.best:
        able = _speculates(best.candidate) or not speculate
        able &= best.candidate.policy.devices <= case.machine.devices
        if able and shortfall(case.machine.budgets(), peak_items(case, best.decision)) is None:
            yield Found(best.candidate, best.decision, walk.evaluator.simulate(best.decision))


def _asked(case: Case, fixed: Fixed) -> tuple[object, ...]:
    """What has to be the same for a plan to be one for another question too, as far as it does not lie in numbers."""
    able = case.acceptance is not None
    return case.workload, case.target, case.draft, able, case.machine.gpu is None, fixed


def _split(candidate: Candidate) -> tuple[int, int]:
    return candidate.policy.stages, candidate.policy.tensor


def _speculates(candidate: Candidate) -> bool:
    return candidate.policy.gamma > 0


def _made(case: Case, fixed: Fixed, seed: Candidate, requests: int) -> Iterator[Candidate]:
    """The seed for another case: with as many sequences in a batch, and with as large a share of all `requests`."""
    split = fixed.stages in (None, seed.policy.stages) and fixed.tensor in (None, seed.policy.tensor)
    if seed.policy.devices > case.machine.devices or not split:
        return
    fixed, strategy = like(fixed, seed), fixed.strategy or seed.strategy
    if not has_batches(strategy, fixed):
        return
    gamma = seed.policy.gamma if fixed.gamma is None else fixed.gamma
    if gamma and (case.acceptance is None or case.workload.output_tokens == 1):
        return
    most = math.ceil(case.workload.requests / most_batches(strategy, fixed))
    policy = seed.policy
    for size in (policy.batch, round(policy.batch * case.workload.requests / requests)):
        batch = fixed.batch or max(1, min(size, most))
        kept = policy.ring_slots, policy.expert_fetch, fixed, seed.cuts, policy.chunk_tokens
        yield make(case, strategy, gamma, batch, *kept)  # type: ignore[arg-type]


def _shrunk(case: Case, fixed: Fixed, seed: Candidate, halvings: int) -> Iterator[Candidate]:
    """The seed with its batch halved so often, in ever less memory."""
    policy, fixed = seed.policy, like(fixed, seed)
    batch, slots = max(1, policy.batch >> halvings), min(policy.ring_slots, LEAST_RING)
    least = GAMMAS[0] if policy.gamma and fixed.gamma is None else policy.gamma
    for gamma in dict.fromkeys((policy.gamma, least)):
        finest = make(case, seed.strategy, gamma, batch, slots, policy.expert_fetch, fixed, MOST_CUTS, LEAST_CHUNK)
        for cuts in dict.fromkeys((seed.cuts, max(seed.cuts, MOST_CUTS // 4), MOST_CUTS)):
            yield make(case, seed.strategy, gamma, batch, slots, policy.expert_fetch, fixed, cuts, policy.chunk_tokens)
        yield finest


def _steps(case: Case, fixed: Fixed, c: Candidate) -> Iterator[Candidate]:
    """The candidates with the next smaller and larger gamma and batch."""
    policy, fixed = c.policy, like(fixed, c)
    gammas = _beside(GAMMAS, policy.gamma) if policy.gamma and fixed.gamma is None else []
    sizes = batch_sizes(case.workload.requests, policy.batches)
    batches = _beside(sizes, policy.batch) if fixed.batch is None else []
    for gamma, batch in [(gamma, policy.batch) for gamma in gammas] + [(policy.gamma, batch) for batch in batches]:
        numbers = gamma, batch, policy.ring_slots, policy.expert_fetch
        yield make(case, c.strategy, *numbers, fixed, c.cuts, policy.chunk_tokens)


def _others(case: Case, fixed: Fixed, c: Candidate) -> Iterator[Candidate]:
    """Without speculation: as many sequences in two batches instead of one, or the other way round. Neither roofline
    nor promise see well which is better. Prefill sweeps are cut once more, as shorter ones hide as well."""
    policy, strategy = c.policy, OTHER.get(c.strategy)
    able = fixed.strategy is None and fixed.batch is None and fixed.batches is None and policy.in_flight > 1
    if able and strategy is not None and not _speculates(c):
        cuts = min(2 * c.cuts, MOST_CUTS)
        batch = math.ceil(policy.in_flight / BATCHES[strategy])
        own = like(fixed, c)
        numbers = policy.gamma, batch, policy.ring_slots, policy.expert_fetch
        yield make(case, strategy, *numbers, own, cuts, policy.chunk_tokens)


def _beside(values: tuple[int, ...], value: int) -> list[int]:
    """The nearest value below, and the nearest above."""
    return [v for v in values if v < value][-1:] + [v for v in values if v > value][:1]
