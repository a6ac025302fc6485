"""The discrete-event engine: tasks in FIFO streams that share bandwidth, turned into start and end times.

What it computes. Every task belongs to one stream. A stream runs its tasks one at a time, in index order;
the task at the head starts at the first moment when the task before it and all its dependencies have ended.
Alone, task i takes `seconds[i]`. While it runs at full speed it uses the share `demands[i]` of each shared
pool (DRAM, VRAM bandwidth, cores); every pool has capacity 1. When running tasks ask a pool for more than
that, `fair_rates` slows some of them, and the rates hold until the set of running tasks changes. Tasks that
end together free their streams together, before any rate is computed anew; so the order in which ties are
handled changes nothing.

Streams may take turns instead: of those that have one worker, one at a time runs a task, to its end. A worker
that is free takes the head that could start, that of the stream of its own name first, else the lowest index.
Nobody is interrupted, so a shorter task may lengthen the whole (Graham, 1969).

How. A stream waits for one task at any time: the one it runs, or an unfinished dependency of its head. So
an ending task needs no list of dependents: it wakes the few streams that wait for it. The next ending is a
minimum over the streams. An end time is absolute and is touched only when its task's rate changes, so a
task that nobody slows ends at exactly start + seconds, and it starts at exactly max(stream free, ends of
dependencies).

Hence `critical path <= makespan <= sum(seconds)`: rates never exceed 1, some task always runs, and tasks
that share a full pool do at least one second of work per second between them, as no demand exceeds 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from specsim.errors import InputError

Demand = tuple[tuple[str, float], ...]  # ((pool, share 0..1], ...)

_IDLE = -1  # what a stream waits for when its queue is empty
_TURN = -2  # and when its head could start, but for its worker
_CAPACITY = 1.0 + 1e-9  # of a pool; shares that add up to 1 but for rounding slow nobody


def run(
    streams: Sequence[str],
    seconds: Sequence[float],
    deps: Sequence[Sequence[int]],
    demands: Sequence[Demand],
    workers: Mapping[str, str] | None = None,
) -> tuple[list[float], list[float]]:
    """Start and end of every task, in seconds from 0; the first four arguments have one entry per task.

    `streams[i]` names the FIFO queue of task i, `seconds[i] >= 0` is its time alone, `deps[i]` are indices
    below i of tasks that must have ended, `demands[i]` its shares of pools. `workers` names, for streams that
    take turns, whom they share. Raises InputError naming the task at fault.
    """
    _check(streams, seconds, deps, demands)
    if not streams:
        return [], []
    stream_of = {name: number for number, name in enumerate(dict.fromkeys(streams))}
    tasks: list[list[int]] = [[] for _ in stream_of]
    for task, name in enumerate(streams):
        tasks[stream_of[name]].append(task)
    kinds: dict[Demand, int] = {(): 0}  # distinct demands, numbered; 0 asks for nothing
    kind_of = [kinds.setdefault(demand, len(kinds)) for demand in demands]
    queues = [iter(queue) for queue in tasks]
    numbers = range(len(queues))
    worker_of = [(workers or {}).get(name, "") for name in stream_of]  # "": one of its own
    first = [name == worker for name, worker in zip(stream_of, worker_of, strict=True)]
    busy = {"": False}  # worker -> whether it runs a task
    turns: list[int] = []  # streams whose heads wait for a worker only
    ready: list[int] = []  # streams whose heads start now

    heads = [next(queue) for queue in queues]  # the task that each stream runs, or will run next
    waits = [_IDLE for _ in numbers]  # the task whose end each stream waits for
    finish = [math.inf for _ in numbers]  # when the running task ends at its present rate; inf: none runs
    rates = [1.0 for _ in numbers]
    running = [0 for _ in numbers]  # the kind of demand of each stream's running task
    full = tuple(rates)
    shared: dict[tuple[int, ...], tuple[float, ...]] = {}  # running -> rates; `full` where none is slowed
    kind_demands = tuple(kinds)
    changed = slowed = False

    starts = [0.0] * len(streams)
    ends = [math.inf] * len(streams)
    now = 0.0
    ended = _IDLE  # at first every stream "waits" for this
    while True:
        for stream in numbers:
            if waits[stream] != ended:
                continue
            head = heads[stream]
            if head == ended:
                head = heads[stream] = next(queues[stream], _IDLE)
                if head == _IDLE:
                    waits[stream] = _IDLE
                    continue
            for dependency in deps[head]:
                if ends[dependency] > now:
                    waits[stream] = dependency
                    break
            else:
                waits[stream] = _TURN
                (turns if worker_of[stream] else ready).append(stream)
        for stream in ready:
            head = waits[stream] = heads[stream]
            starts[head] = now
            finish[stream] = now + seconds[head]
            kind = kind_of[head]
            if kind:
                running[stream] = kind
                changed = True
        ready.clear()
        soonest = min(finish)
        # Before time moves on, and once for everything that happened at `now`: whose turn it is, and how fast all go.
        if turns and soonest > now:
            for stream in sorted(turns, key=lambda stream: (not first[stream], heads[stream])):
                if not busy.get(worker_of[stream], False):
                    busy[worker_of[stream]] = True
                    turns.remove(stream)
                    ready.append(stream)
            if ready:
                continue
        if changed and soonest > now:
            changed = False
            state = tuple(running)
            new = shared.get(state)
            if new is None:
                new = tuple(fair_rates([kind_demands[kind] for kind in state]))
                new = shared[state] = full if new == full else new
            if slowed or new is not full:
                slowed = new is not full
                for stream in numbers:
                    if rates[stream] != new[stream]:
                        finish[stream] = now + (finish[stream] - now) * rates[stream] / new[stream]
                        rates[stream] = new[stream]
                soonest = min(finish)
        if soonest == math.inf:
            return starts, ends
        now = soonest
        stream = finish.index(now)
        ended = heads[stream]
        ends[ended] = now
        finish[stream] = math.inf
        busy[worker_of[stream]] = False
        if running[stream]:
            running[stream] = 0
            rates[stream] = 1.0
            changed = True


def fair_rates(demands: Sequence[Demand]) -> list[float]:
    """The rate (0..1] of each running task: granted over demanded bandwidth, with max-min fair grants.

    Progressive filling (Bertsekas and Gallager, Data Networks, 6.5.2; for several pools: Ghodsi et al.,
    Dominant Resource Fairness, NSDI 2011, 4.1). Only pools that are asked for more than they have can slow
    a task, so only these count. A task's bandwidth is what it takes from the one of them that it asks most
    of; what it takes from the others follows in proportion. All bandwidths rise together from 0; a task's
    stops rising when it has what it demands (rate 1) or when a pool that it uses is full. So a slowed task
    uses a full pool whose every user has at most its bandwidth, and no task can be faster without slowing
    another.
    """
    asked: dict[str, float] = {}
    for demand in demands:
        for pool, share in demand:
            asked[pool] = asked.get(pool, 0.0) + share
    free = {pool: 1.0 for pool, total in asked.items() if total > _CAPACITY}
    rates = [1.0] * len(demands)
    if not free:
        return rates
    uses = [{pool: share for pool, share in demand if pool in free} for demand in demands]
    rising = {i: max(use.values()) for i, use in enumerate(uses) if use}  # task -> bandwidth at rate 1
    level = 0.0
    while rising:
        # Each unit that the level rises costs a pool share / wanted for every rising task that uses it.
        cost = {pool: sum(uses[i].get(pool, 0.0) / rising[i] for i in rising) for pool in free}
        reach, full = min((free[pool] / cost[pool], pool) for pool in free if cost[pool])
        level = max(level, reach)
        content = [i for i, wanted in rising.items() if wanted <= level]
        for i in content or [i for i in rising if full in uses[i]]:
            wanted = rising.pop(i)
            rates[i] = min(level / wanted, 1.0)
            for pool, share in uses[i].items():
                free[pool] -= share * rates[i]
    return rates


def _check(
    streams: Sequence[str], seconds: Sequence[float], deps: Sequence[Sequence[int]], demands: Sequence[Demand]
) -> None:
    count = len(streams)
    if not count == len(seconds) == len(deps) == len(demands):
        lengths = f"{count} streams, {len(seconds)} seconds, {len(deps)} deps, {len(demands)} demands"
        raise InputError(f"{lengths}: one of each per task", where="tasks")
    for task, value in enumerate(seconds):
        if not 0.0 <= value < math.inf:
            raise InputError(f"takes {value!r} s", where=f"task {task}", hint="give a finite time, 0 or more")
    for task, before in enumerate(deps):
        if before and not 0 <= min(before) <= max(before) < task:
            hint = "a task may depend only on tasks of lower index"
            raise InputError(f"depends on {list(before)}", where=f"task {task}", hint=hint)
    for demand in set(demands):
        pools = [pool for pool, _ in demand]
        if len(pools) != len(set(pools)) or not all(0.0 < share <= 1.0 for _, share in demand):
            hint = "name each pool once, with a share above 0 and up to 1"
            raise InputError(f"demands {demand!r}", where=f"task {demands.index(demand)}", hint=hint)
