"""What a process does that may be one of several which torchrun started."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime

from executor.options import RunOptions, RunResult
from executor.outputs import write_whole
from executor.ranks.assist import assist
from executor.ranks.cores import keep_to_own
from executor.ranks.crew import Crew
from executor.ranks.world import Launch, RankError, World
from executor.run import run
from specsim.answer import Plan
from specsim.errors import SpecsimError
from specsim.runtime import go_on


def run_rank(plan: Plan, options: RunOptions) -> RunResult | None:
    """Do this process's share of what the plan says, which is all of it where it is the only one. The first of several
    ranks has the result, the others None.

    Raises as `run` and `assist` do.
    """
    launch = Launch.found()
    if launch.ranks == 1:
        return run(plan, options)
    try:
        options = replace(options, threads=keep_to_own(launch, options.threads))
        with World(launch) as world:
            if launch.rank == 0:
                return _first(plan, options, world)
            assist(plan, options, world)
    except SpecsimError as error:
        _note(error)
        raise
    return None


def _first(plan: Plan, options: RunOptions, world: World) -> RunResult:
    with Crew(world) as crew:
        try:
            return run(plan, options, crew)
        except RankError as error:
            raise RankError(f"{error}; go on with: {go_on(options.out, world.ranks)}") from None


def _note(error: SpecsimError) -> None:
    """Leave the error where torchrun looks for what its own last lines say of this rank."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is not None:
        write_whole(path, json.dumps({"message": str(error), "timestamp": int(datetime.now(UTC).timestamp())}))
