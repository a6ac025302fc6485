"""Wall time and memory of the command line, each run in an interpreter of its own.

    python -m benchmarks.commands [--json]

Measured are `specsim --help`, which must not load what it does not need, `specsim plan` for Mixtral 8x7B on an RTX
4090, and `specsim compare` for it on env1. Wall time is the median of five runs, from the start of the process to its
end; memory is the largest resident set of any of them, the solver's own process not counted. Files are in the page
cache after the first run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_REPETITIONS = 5
_MB = 10**6
#: ru_maxrss is in KiB, on macOS in bytes
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Goal:
    """A command line, and what it may take: seconds, and bytes where there is a limit."""

    arguments: tuple[str, ...]
    seconds: float
    rss_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: the median of its seconds, and the most bytes that were resident."""

    command: str
    seconds: float
    rss_bytes: int
    goal_seconds: float
    goal_rss_bytes: float | None

    @property
    def met(self) -> bool:
        return self.seconds <= self.goal_seconds and self.rss_bytes <= (self.goal_rss_bytes or self.rss_bytes)


def goals(plan_file: Path) -> tuple[Goal, ...]:
    models = ("--target", "mixtral-8x7b", "--draft", "mistral-7b", "--workload", "humaneval")
    plan = ("plan", "--gpu", "rtx4090", *models, "-o", str(plan_file))
    compare = ("compare", "--machine", "env1", *models)
    return Goal(("--help",), 0.5), Goal(plan, 5.0, 400 * _MB), Goal(compare, 15.0)


def run(arguments: tuple[str, ...]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of `specsim ARGUMENTS...`. Raises RuntimeError where it fails."""
    command = [sys.executable, "-m", "specsim", *arguments]
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    began = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"specsim {' '.join(arguments)} ended with status {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss * _RSS_UNIT


def measure(goal: Goal, shown: str) -> Cost:
    """Run a command `_REPETITIONS` times."""
    runs = [run(goal.arguments) for _ in range(_REPETITIONS)]
    seconds, sizes = zip(*runs, strict=True)
    return Cost(shown, statistics.median(seconds), max(sizes), goal.seconds, goal.rss_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands", description="Cost of the commands.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.yaml"
        costs = [measure(g, " ".join(("specsim", *g.arguments)).replace(str(file), file.name)) for g in goals(file)]
    system = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs"
    if options.json:
        rows = [asdict(cost) | {"met": cost.met} for cost in costs]
        print(json.dumps({"system": system, "repetitions": _REPETITIONS, "commands": rows}, indent=2))
        return
    print(f"median of {_REPETITIONS}, {system}")
    print(f"{'seconds':>8} {'goal':>5} {'MB':>5} {'goal':>5}  met  command")
    for cost in costs:
        limit = "-" if cost.goal_rss_bytes is None else f"{cost.goal_rss_bytes / _MB:.0f}"
        times = f"{cost.seconds:8.2f} {cost.goal_seconds:5.1f} {cost.rss_bytes / _MB:5.0f} {limit:>5}"
        print(f"{times}  {'yes' if cost.met else 'no ':3}  {cost.command}")


if __name__ == "__main__":
    main()
