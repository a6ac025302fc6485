"""A finished run, read from the directory that it left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from specsim.errors import InputError
from specsim.timeline import Timeline, read_trace
from specsim.validation.throughput import Ran

METRICS: Final = "metrics.json"
TRACE: Final = "trace.json"


def read_run(directory: Path) -> tuple[Ran, dict[str, Timeline]]:
    """What the run measured, and its timelines, `predicted` (for the rounds as they were) and `measured`.

    Raises InputError where either file is missing or not one of a run.
    """
    path, hint = directory / METRICS, "give the directory that specsim run -o wrote"
    try:
        ran = msgspec.json.decode(path.read_bytes(), type=Ran)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint=hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"is not the metrics of a run: {error}", where=str(path), hint=hint) from None
    timelines = read_trace(directory / TRACE)
    if missing := {"predicted", "measured"} - timelines.keys():
        raise InputError(f"has no timeline called {min(missing)}", where=str(directory / TRACE), hint=hint)
    return ran, timelines
