"""The search over several devices: how many stages, how many devices in each, and within each such layout a search.

Layouts that are worth little are told by a short look; the best few are searched like a single device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from specsim.case import Case
from specsim.devices import straddles
from specsim.errors import InputError
from specsim.partition import shard
from specsim.planner.candidates import Fixed, strategies
from specsim.planner.search import PLACEMENTS, SIMULATIONS, Progress, Search, SearchResult

#: stages, and devices in each, that are looked at: the same for every machine, so that more devices never see fewer
STAGES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24)
TENSORS: Final = (1, 2, 4, 8)
#: placements of the short look, and of its simulations
LOOK: Final = (6, 1)
#: layouts that are searched
SEARCHED: Final = 2


def search_all(
    case: Case,
    fixed: Fixed,
    progress: Progress | None = None,
    placements: int = PLACEMENTS,
    simulations: int = SIMULATIONS,
    *,
    speculate: bool = False,
    survey: bool = True,
) -> SearchResult:
    """All that a search found on the devices of a machine, see `SearchResult`."""

    def run(on: Fixed, placements: int, simulations: int, *, survey: bool) -> SearchResult:
        return Search(case, on, progress, placements, simulations, speculate, survey).run()

    able = list(layouts(case, fixed))
    if len(able) == 1:
        return run(able[0], placements, simulations, survey=survey)
    looks = [(run(on, *LOOK, survey=False), on) for on in able]
    looks.sort(key=lambda look: -_best(look[0]))
    results = [run(on, placements, simulations, survey=survey) for _, on in looks[:SEARCHED]]
    return _together([*results, *(result for result, _ in looks)])


def layouts(case: Case, fixed: Fixed) -> Iterator[Fixed]:
    """What is fixed, for every number of stages and of devices in each that there are. Raises InputError where none can
    be what is fixed."""
    machine, target = case.machine, case.target
    if machine.devices == 1:
        yield fixed
        return
    able = []
    for count in (fixed.stages,) if fixed.stages else STAGES:
        for tensor in (fixed.tensor,) if fixed.tensor else TENSORS:
            if count * tensor > machine.devices or count > target.layers or straddles(machine, count, tensor):
                continue
            try:
                shard(target, range(target.layers), tensor)
            except InputError:
                continue
            able.append(replace(fixed, stages=count, tensor=tensor))
    if not able:
        asked = f"{fixed.stages or 'any number of'} stages of {fixed.tensor or 'any number of'} devices"
        raise InputError(f"{target.name!r} cannot be cut into {asked}", where="--fix", hint="leave one to the planner")
    filled = [on for on in able if _has_strategies(case, on)]
    yield from filled or able[:1]  # the search says why none of them will do


def _has_strategies(case: Case, on: Fixed) -> bool:
    try:
        return bool(strategies(case, on))
    except InputError:
        return False


def _best(result: SearchResult) -> float:
    return result.found[0].tokens_per_second if result.found else 0.0


def _together(results: list[SearchResult]) -> SearchResult:
    found = {f.candidate: f for result in results for f in result.found}
    ranked = tuple(sorted(found.values(), key=lambda f: -f.tokens_per_second))
    bound = max(result.bound for result in results)
    return SearchResult(
        ranked,
        bound,
        bound / ranked[0].tokens_per_second - 1 if ranked else 0.0,
        sum(result.candidates for result in results),
        sum(result.feasible for result in results),
        sum(result.seconds for result in results),
    )
