"""The error of a predicted timeline, split by resource and kind of task.

A kind's share of the error is found by counterfactual simulation: the tasks are run once more, on the predicted graph,
with measured durations in the place of predicted ones for some kinds and not for others. What a kind adds depends on
what was replaced before it (reads hidden behind a slow CPU cost nothing until the CPU is as fast as predicted), so the
kinds stand in line in many orders, each once in every place, and a share is the mean over them: the Shapley value
(Shapley 1953), over cyclic orders and their reverses instead of all. Shares therefore add up, exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache

from specsim.cost.timing import resource
from specsim.errors import InputError
from specsim.simulator import engine
from specsim.simulator.pricing import workers
from specsim.timeline import Timeline
from specsim.validation.occupancy import occupied_seconds

Kind = tuple[str, str]  # resource and kind of task, such as ("disk", "read")


@dataclass(frozen=True, slots=True)
class KindError:
    """Tasks of one kind on one resource: seconds in which they had it (see `occupancy`), predicted and measured, and by
    how many seconds their durations make the job longer than predicted."""

    resource: str
    kind: str
    tasks: int
    predicted_s: float
    measured_s: float
    explains_s: float

    @property
    def ratio(self) -> float | None:
        """How many times the prediction the measurement is; None where nothing was predicted."""
        return self.measured_s / self.predicted_s if self.predicted_s else None


@dataclass(frozen=True, slots=True)
class MachineError:
    """The makespan of the same tasks, predicted and measured. The shares of `kinds`, the largest first, and of
    `between_s`, time in which what a task waited for had ended and it had not begun, add up to the difference."""

    predicted_s: float
    measured_s: float
    kinds: tuple[KindError, ...]
    between_s: float


def machine_error(predicted: Timeline, measured: Timeline, in_turn: Collection[str] = ()) -> MachineError:
    """Lay `measured` over `predicted`, which has dependencies; streams of processors `in_turn` take turns. Tasks are
    matched by name; those of one side only are left out. Raises InputError where no name is in both."""
    names = {span.name: i for i, span in enumerate(measured.spans)}
    pairs = [(i, names[span.name]) for i, span in enumerate(predicted.spans) if span.name in names]
    if not pairs:
        hint = "give the trace of a run of this plan"
        raise InputError("no task is in both the predicted and the measured timeline", where="trace", hint=hint)
    taken = [occupied_seconds(timeline) for timeline in (predicted, measured)]
    planned, found = taken[0], list(taken[0])
    members: dict[Kind, list[int]] = defaultdict(list)
    for i, j in pairs:
        found[i] = taken[1][j]
        span = predicted.spans[i]
        members[resource(span.stream), span.kind].append(i)
    kinds = {kind: tasks for kind, tasks in members.items() if any(planned[i] or found[i] for i in tasks)}

    @cache
    def makespan(replaced: frozenset[Kind]) -> float:
        seconds = list(planned)
        for kind in replaced:
            for i in kinds[kind]:
                seconds[i] = found[i]
        return _makespan(predicted, seconds, in_turn)

    shares = shapley(list(kinds), makespan)
    ran = [measured.spans[j] for _, j in pairs]
    whole = max(span.end for span in ran) - min(span.start for span in ran)
    rows = [
        KindError(*kind, len(tasks), sum(planned[i] for i in tasks), sum(found[i] for i in tasks), shares[kind])
        for kind, tasks in kinds.items()
    ]
    rows.sort(key=lambda row: -abs(row.explains_s))
    explained = sum(shares.values())
    return MachineError(predicted.makespan, whole, tuple(rows), whole - predicted.makespan - explained)


def shapley(players: Collection[Kind], worth: Callable[[frozenset[Kind]], float]) -> dict[Kind, float]:
    """What each player adds to the worth of those before it, the mean over the cyclic orders and their reverses."""
    line = list(players)
    added = dict.fromkeys(line, 0.0)
    orders = [order for n in range(len(line)) for order in (line[n:] + line[:n], (line[n:] + line[:n])[::-1])]
    for order in orders:
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            added[player] += (worth(before | {player}) - worth(before)) / len(orders)
    return added


def _makespan(timeline: Timeline, seconds: list[float], in_turn: Collection[str]) -> float:
    """The timeline's tasks in their streams and order, each having its resource for so long. Bandwidth that resources
    share (DRAM) is in the durations already."""
    streams = [span.stream for span in timeline.spans]
    demands = [((resource(stream), 1.0),) for stream in streams]
    deps = timeline.preds or [()] * len(streams)
    _, ends = engine.run(streams, seconds, deps, demands, workers(in_turn, streams))
    return max(ends)
