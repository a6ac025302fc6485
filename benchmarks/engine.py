"""Tasks per second of the discrete-event engine, beside SimPy on the same tasks.

    python -m benchmarks.engine [--tasks 20000] [--json]

The tasks: four streams taken in turn, each task waiting for its place in its stream's queue and for a task on
another stream, a third of them with a demand for DRAM that is always met. SimPy is written in two ways: one
process per task, which queues for a Resource per stream, as its documentation shows; and one process per
stream, which is the least that it can be asked to do. SimPy's part leaves out the demands. The three run in
turn, five times; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import simpy

from specsim.simulator.engine import Demand, run

_STREAMS = ("gpu", "h2d", "cpu", "d2h")
_REPETITIONS = 5


@dataclass(frozen=True, slots=True)
class Tasks:
    streams: list[str]
    seconds: list[float]
    deps: list[tuple[int, ...]]
    demands: list[Demand]


def chain(count: int) -> Tasks:
    """`count` tasks, each waiting for its own stream and for the task five before it, which is on another."""
    dram: tuple[Demand, ...] = ((), (("dram", 0.2),), (("cpu", 0.25), ("dram", 0.25)))
    return Tasks(
        [_STREAMS[i % len(_STREAMS)] for i in range(count)],
        [1e-3 * (1 + i % 7) for i in range(count)],
        [(i - 5,) if i >= 5 else () for i in range(count)],
        [dram[i % 3 if i % 2 else 0] for i in range(count)],
    )


def by_specsim(tasks: Tasks) -> float:
    """Makespan, in seconds."""
    return max(run(tasks.streams, tasks.seconds, tasks.deps, tasks.demands)[1])


def by_simpy_tasks(tasks: Tasks) -> float:
    """Makespan, in seconds, with one SimPy process per task."""
    env = simpy.Environment()
    lanes = {name: simpy.Resource(env) for name in _STREAMS}
    done = [env.event() for _ in tasks.streams]

    def task(i: int) -> Generator[simpy.Event]:
        with lanes[tasks.streams[i]].request() as turn:
            yield turn
            for before in tasks.deps[i]:
                yield done[before]
            yield env.timeout(tasks.seconds[i])
        done[i].succeed()

    for i in range(len(tasks.streams)):
        env.process(task(i))
    env.run()
    return float(env.now)


def by_simpy_streams(tasks: Tasks) -> float:
    """Makespan, in seconds, with one SimPy process per stream."""
    env = simpy.Environment()
    done = [env.event() for _ in tasks.streams]

    def stream(name: str) -> Generator[simpy.Event]:
        for i, own in enumerate(tasks.streams):
            if own == name:
                for before in tasks.deps[i]:
                    yield done[before]
                yield env.timeout(tasks.seconds[i])
                done[i].succeed()

    for name in _STREAMS:
        env.process(stream(name))
    env.run()
    return float(env.now)


ENGINES: dict[str, Callable[[Tasks], float]] = {
    "specsim": by_specsim,
    "simpy, a process per task": by_simpy_tasks,
    "simpy, a process per stream": by_simpy_streams,
}


def measure(count: int) -> dict[str, float]:
    """Median tasks per second of each engine, on `count` tasks."""
    tasks = chain(count)
    expected = by_specsim(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(_REPETITIONS):
        for name, engine in ENGINES.items():
            began = time.perf_counter()
            makespan = engine(tasks)
            seconds[name].append(time.perf_counter() - began)
            assert abs(makespan - expected) <= 1e-9 * expected, f"{name}: {makespan} s, not {expected} s"
    return {name: count / statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description="Engine against SimPy.")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks per run (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rates = measure(options.tasks)
    ours = rates["specsim"]
    system = f"{platform.python_implementation()} {platform.python_version()}, SimPy {simpy.__version__}"
    if options.json:
        result = {
            "system": system,
            "tasks": options.tasks,
            "repetitions": _REPETITIONS,
            "tasks_per_second": rates,
            "ratio": {name: ours / rate for name, rate in rates.items()},
        }
        print(json.dumps(result, indent=2))
        return
    print(f"{options.tasks} tasks, median of {_REPETITIONS}, {system}")
    for name, rate in rates.items():
        print(f"{name:28} {rate:12,.0f} tasks/s   specsim is {ours / rate:5.1f} x")


if __name__ == "__main__":
    main()
