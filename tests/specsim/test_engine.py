"""The engine tells short stories exactly, and keeps its promises on random ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specsim.errors import InputError
from specsim.simulator import Demand, fair_rates, run


@dataclass(frozen=True)
class Task:
    name: str
    stream: str
    seconds: float
    after: tuple[str, ...] = ()
    demand: Demand = ()


def log(*tasks: Task, workers: Mapping[str, str] | None = None) -> list[tuple[float, float, str]]:
    """(start, end, name) of every task, in time order and then in the order given."""
    place = {task.name: i for i, task in enumerate(tasks)}
    deps = [[place[name] for name in task.after] for task in tasks]
    streams, seconds, demands = zip(*((t.stream, t.seconds, t.demand) for t in tasks), strict=True)
    starts, ends = run(streams, seconds, deps, demands, workers)
    return sorted(zip(starts, ends, [t.name for t in tasks], strict=True), key=lambda row: row[:2])


def dram(share: float) -> Demand:
    return (("dram", share),)


def test_nothing_to_do() -> None:
    assert run([], [], [], []) == ([], [])


def test_a_stream_runs_its_tasks_one_after_another() -> None:
    assert log(Task("a", "gpu", 2), Task("b", "gpu", 3)) == [(0, 2, "a"), (2, 5, "b")]


def test_a_chain_crosses_streams() -> None:
    assert log(
        Task("qkv", "gpu", 1),
        Task("down", "d2h", 2, ("qkv",)),
        Task("attention", "cpu", 4, ("down",)),
        Task("up", "h2d", 2, ("attention",)),
        Task("ffn", "gpu", 1, ("up",)),
    ) == [(0, 1, "qkv"), (1, 3, "down"), (3, 7, "attention"), (7, 9, "up"), (9, 10, "ffn")]


def test_loads_run_ahead_of_compute_by_a_ring_of_two() -> None:
    """Load 2 may overwrite slot 0 only when layer 0 has been computed."""
    assert log(
        Task("load 0", "h2d", 2),
        Task("load 1", "h2d", 2),
        Task("layer 0", "gpu", 3, ("load 0",)),
        Task("load 2", "h2d", 2, ("layer 0",)),
        Task("layer 1", "gpu", 3, ("load 1",)),
        Task("load 3", "h2d", 2, ("layer 1",)),
        Task("layer 2", "gpu", 3, ("load 2",)),
        Task("layer 3", "gpu", 3, ("load 3",)),
    ) == [
        (0, 2, "load 0"),
        (2, 4, "load 1"),
        (2, 5, "layer 0"),
        (5, 7, "load 2"),
        (5, 8, "layer 1"),
        (8, 10, "load 3"),
        (8, 11, "layer 2"),
        (11, 14, "layer 3"),
    ]


def test_a_blocked_head_blocks_the_ready_task_behind_it() -> None:
    assert log(
        Task("long", "cpu", 5),
        Task("blocked", "gpu", 1, ("long",)),
        Task("ready", "gpu", 1),
    ) == [(0, 5, "long"), (5, 6, "blocked"), (6, 7, "ready")]


def test_tasks_that_end_together_are_waited_for_together() -> None:
    assert log(
        Task("a", "gpu", 3),
        Task("b", "cpu", 1),
        Task("c", "cpu", 2),
        Task("both", "h2d", 1, ("a", "c")),
        Task("next", "gpu", 1, ("c",)),
    ) == [(0, 1, "b"), (0, 3, "a"), (1, 3, "c"), (3, 4, "both"), (3, 4, "next")]


def test_tasks_of_no_length_take_their_turn() -> None:
    assert log(
        Task("start", "gpu", 0),
        Task("load", "h2d", 2, ("start",)),
        Task("barrier", "gpu", 0, ("load",)),
        Task("again", "gpu", 0),
        Task("layer", "gpu", 1),
    ) == [(0, 0, "start"), (0, 2, "load"), (2, 2, "barrier"), (2, 2, "again"), (2, 3, "layer")]


def test_streams_of_one_worker_take_turns_and_its_own_goes_first() -> None:
    """A draft step that runs is not interrupted, but none begins while the target could go on."""
    workers = {"cpu": "cpu", "cpu.draft": "cpu"}
    assert log(
        Task("draft 0", "cpu.draft", 4),
        Task("read", "disk", 1),
        Task("draft 1", "cpu.draft", 4),
        Task("ffn", "cpu", 2, ("read",)),
        Task("ffn too", "cpu", 1),
        workers=workers,
    ) == [(0, 1, "read"), (0, 4, "draft 0"), (4, 6, "ffn"), (6, 7, "ffn too"), (7, 11, "draft 1")]


def test_of_the_other_streams_of_a_worker_the_earliest_task_goes_first() -> None:
    workers = {"a": "worker", "b": "worker"}
    assert log(Task("b 0", "b", 1), Task("a 0", "a", 1), Task("a 1", "a", 0), Task("b 1", "b", 1), workers=workers) == [
        (0, 1, "b 0"),
        (1, 2, "a 0"),
        (2, 2, "a 1"),
        (2, 3, "b 1"),
    ]


def test_who_could_start_at_the_same_moment_is_asked_before_a_turn_is_given() -> None:
    """What the target waits for ends just as the draft's step does: in either order it is the target's turn."""
    for first, second in (("cpu.draft", "disk"), ("disk", "cpu.draft")):
        found = log(
            Task("one", first, 2),
            Task("two", second, 2),
            Task("draft", "cpu.draft", 1),
            Task("ffn", "cpu", 1, ("one", "two")),
            workers={"cpu": "cpu", "cpu.draft": "cpu"},
        )
        assert found[2:] == [(2, 3, "ffn"), (3, 4, "draft")]


def test_two_that_want_all_of_a_pool_halve_it() -> None:
    """Half speed until the short one ends at 2; the long one has 2 s of work left and the pool to itself."""
    assert log(
        Task("short", "cpu", 1, demand=dram(1)),
        Task("long", "h2d", 3, demand=dram(1)),
    ) == [(0, 2, "short"), (0, 4, "long")]


def test_attention_and_a_copy_share_dram() -> None:
    """0.8 + 0.6: both get 0.5, rates 5/8 and 5/6. The copy ends at 1.2, attention then has 0.25 s left."""
    copy, attention = log(
        Task("attention", "cpu", 1, demand=(("cpu", 1.0), ("dram", 0.8))),
        Task("copy", "h2d", 1, demand=dram(0.6)),
    )
    assert (copy[2], attention[2]) == ("copy", "attention")
    assert copy[:2] == pytest.approx((0, 1.2), rel=1e-12)
    assert attention[:2] == pytest.approx((0, 1.45), rel=1e-12)


def test_a_newcomer_slows_what_runs_and_speed_returns() -> None:
    """The reader runs alone for 1 s, at half speed beside two copies of 1 s (2 s each), then alone again."""
    assert log(
        Task("reader", "cpu", 4, demand=dram(1)),
        Task("wait", "h2d", 1),
        Task("copy 1", "h2d", 1, demand=dram(1)),
        Task("copy 2", "h2d", 1, demand=dram(1)),
    ) == [(0, 1, "wait"), (0, 6, "reader"), (1, 3, "copy 1"), (3, 5, "copy 2")]


def test_a_task_that_nobody_slows_ends_exactly_where_addition_says() -> None:
    """0.1 s kernels beside a pool that changes hands: not one bit of drift."""
    tasks = [Task(f"kernel {i}", "gpu", 0.1) for i in range(50)]
    tasks += [Task(f"reader {i}", "cpu", 0.07, demand=dram(0.9)) for i in range(50)]
    tasks += [Task(f"copy {i}", "h2d", 0.03, demand=dram(0.7)) for i in range(50)]
    kernels = [row for row in log(*tasks) if row[2].startswith("kernel")]
    now = 0.0
    for start, end, _ in kernels:
        assert (start, end) == (now, now + 0.1)
        now += 0.1


@pytest.mark.parametrize(
    ("demands", "rates"),
    [
        ([], []),
        ([()], [1]),
        ([dram(1.0), ()], [1, 1]),
        ([dram(0.7), dram(0.2), dram(0.1)], [1, 1, 1]),
        ([dram(1.0), dram(1.0)], [1 / 2, 1 / 2]),
        ([dram(0.8), dram(0.6)], [5 / 8, 5 / 6]),
        ([dram(1.0), dram(0.3)], [0.7, 1]),
        ([dram(0.2), dram(0.6), dram(0.8)], [1, 2 / 3, 1 / 2]),
    ],
)
def test_fair_rates_of_one_pool(demands: list[Demand], rates: list[float]) -> None:
    assert fair_rates(demands) == pytest.approx(rates, rel=1e-12)


def test_a_pool_that_has_enough_does_not_weigh_in() -> None:
    """Only DRAM is short: both may have half of it, all that attention wants, however busy its cores."""
    assert fair_rates([(("cpu", 1.0), ("dram", 0.5)), dram(0.8)]) == [1.0, 0.625]


def test_what_one_pool_withholds_another_gives_to_others() -> None:
    """`a` and `b` halve x; `a` then leaves three quarters of y to `c`."""
    a, b, c = (("x", 1.0), ("y", 0.5)), (("x", 1.0),), (("y", 1.0),)
    assert fair_rates([a, b, c]) == [0.5, 0.5, 0.75]


@pytest.mark.parametrize(
    ("streams", "seconds", "deps", "demands", "message"),
    [
        (["gpu"], [], [()], [()], "tasks: 1 streams, 0 seconds, 1 deps, 1 demands: one of each per task"),
        (["gpu"], [-1.0], [()], [()], "task 0: takes -1.0 s; give a finite time, 0 or more"),
        (["gpu"], [math.nan], [()], [()], "task 0: takes nan s; give a finite time, 0 or more"),
        (["gpu"], [math.inf], [()], [()], "task 0: takes inf s; give a finite time, 0 or more"),
        (["gpu"] * 2, [1.0] * 2, [(), (1,)], [()] * 2, "task 1: depends on [1]; a task may depend only on"),
        (["gpu"] * 2, [1.0] * 2, [(), (-1,)], [()] * 2, "task 1: depends on [-1]; a task may depend only on"),
        (
            ["gpu"] * 2,
            [1.0] * 2,
            [(), ()],
            [(), dram(1.5)],
            "task 1: demands (('dram', 1.5),); name each pool",
        ),
        (["gpu"], [1.0], [()], [dram(0.0)], "task 0: demands (('dram', 0.0),); name each pool once"),
        (["gpu"], [1.0], [()], [dram(0.1) * 2], "task 0: demands (('dram', 0.1), ('dram', 0.1)); name each"),
    ],
)
def test_a_task_at_fault_is_named(
    streams: list[str],
    seconds: list[float],
    deps: list[tuple[int, ...]],
    demands: list[Demand],
    message: str,
) -> None:
    with pytest.raises(InputError) as caught:
        run(streams, seconds, deps, demands)
    assert str(caught.value).startswith(message)


Graph = tuple[list[str], list[float], list[list[int]], list[Demand]]  # streams, seconds, deps, demands

repeatable = settings(deadline=None, derandomize=True)

_shares = st.dictionaries(st.sampled_from(["dram", "cpu", "vram_bw"]), st.floats(0.01, 1.0), max_size=3)
_seconds = st.one_of(st.just(0.0), st.floats(1e-3, 10.0))


@st.composite
def graphs(draw: st.DrawFn, sharing: bool = True) -> Graph:
    count = draw(st.integers(1, 25))
    streams = [draw(st.sampled_from(["gpu", "cpu", "h2d", "disk"])) for _ in range(count)]
    deps = [draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else [] for i in range(count)]
    demands = [tuple(draw(_shares).items()) if sharing else () for _ in range(count)]
    return streams, [draw(_seconds) for _ in range(count)], deps, demands


def at_full_speed(graph: Graph) -> tuple[list[float], list[float]]:
    """The closed recursion: start = max(stream free, ends of dependencies)."""
    free: dict[str, float] = {}
    starts: list[float] = []
    ends: list[float] = []
    for stream, seconds, deps, _ in zip(*graph, strict=True):
        starts.append(max([free.get(stream, 0.0), *(ends[d] for d in deps)]))
        ends.append(starts[-1] + seconds)
        free[stream] = ends[-1]
    return starts, ends


@repeatable
@given(graphs(sharing=False))
def test_without_sharing_the_closed_recursion_holds_to_the_last_bit(graph: Graph) -> None:
    assert run(*graph) == at_full_speed(graph)


@repeatable
@given(graphs())
def test_makespan_lies_between_the_critical_path_and_the_serial_sum(graph: Graph) -> None:
    makespan = max(run(*graph)[1])
    slack = 1 + 1e-9
    assert max(at_full_speed(graph)[1]) <= makespan * slack
    assert makespan <= sum(graph[1]) * slack


@repeatable
@given(graphs())
def test_order_and_dependencies_hold_and_nobody_waits_without_a_reason(graph: Graph) -> None:
    """Each task starts at exactly the end of its stream's last task or of its last dependency."""
    starts, ends = run(*graph)
    free: dict[str, float] = {}
    for i, (stream, _, deps, _) in enumerate(zip(*graph, strict=True)):
        assert starts[i] == max([free.get(stream, 0.0), *(ends[d] for d in deps)])
        free[stream] = ends[i]


@repeatable
@given(graphs())
def test_a_worker_runs_one_task_at_a_time_and_never_rests_while_it_could_go_on(graph: Graph) -> None:
    streams, seconds, deps, _ = graph
    starts, ends = run(streams, seconds, deps, [()] * len(streams), {"gpu": "gpu", "cpu": "gpu"})
    shared = sorted((starts[i], ends[i], i) for i, stream in enumerate(streams) if stream in ("gpu", "cpu"))
    assert all(start >= end for (_, end, _), (start, _, _) in pairwise(shared))
    free = dict.fromkeys(streams, 0.0)
    for i, stream in enumerate(streams):
        ready = max([free[stream], *(ends[d] for d in deps[i])])
        if stream in ("gpu", "cpu"):  # until it began, the worker was busy with others
            others = sum(
                min(end, starts[i]) - max(start, ready) for start, end, _ in shared if ready < end and start < starts[i]
            )
            assert others == pytest.approx(starts[i] - ready)
        else:
            assert starts[i] == ready
        free[stream] = ends[i]


@repeatable
@given(graphs())
def test_every_task_gets_its_work_done_at_the_fair_rates(graph: Graph) -> None:
    """Replay the log: between two events each running task does its fair rate of work, `seconds` in total."""
    _, seconds, _, demands = graph
    starts, ends = run(*graph)
    done = [0.0] * len(seconds)
    times = sorted({*starts, *ends})
    for left, right in pairwise(times):
        now = [i for i in range(len(seconds)) if starts[i] <= left and right <= ends[i]]
        for i, rate in zip(now, fair_rates([demands[i] for i in now]), strict=True):
            done[i] += rate * (right - left)
    assert done == pytest.approx(seconds, rel=1e-9, abs=1e-9)


@repeatable
@given(graphs(sharing=False), st.data())
def test_a_shorter_task_never_lengthens_a_job_that_shares_nothing(graph: Graph, data: st.DataObject) -> None:
    streams, seconds, deps, demands = graph
    i = data.draw(st.integers(0, len(seconds) - 1))
    shorter = [*seconds[:i], seconds[i] * data.draw(st.floats(0.0, 1.0)), *seconds[i + 1 :]]
    assert max(run(streams, shorter, deps, demands)[1]) <= max(run(*graph)[1])


@repeatable
@given(st.lists(_shares.map(lambda shares: tuple(shares.items())), min_size=1, max_size=6))
def test_fair_rates_fill_the_pools_and_favour_nobody(demands: list[Demand]) -> None:
    rates = fair_rates(demands)
    asked = {pool: sum(dict(d).get(pool, 0.0) for d in demands) for demand in demands for pool, _ in demand}
    used = {pool: sum(r * dict(d).get(pool, 0.0) for r, d in zip(rates, demands, strict=True)) for pool in asked}
    assert all(0 < rate <= 1 for rate in rates)
    assert all(total <= 1 + 2e-9 for total in used.values())

    def bandwidth(i: int) -> float:
        return rates[i] * max((share for pool, share in demands[i] if asked[pool] > 1), default=0.0)

    for i, demand in enumerate(demands):
        full = [pool for pool, _ in demand if used[pool] > 1 - 1e-9]
        if rates[i] < 1:
            users = [[j for j, d in enumerate(demands) if pool in dict(d)] for pool in full]
            assert any(all(bandwidth(j) <= bandwidth(i) + 1e-9 for j in pool) for pool in users)
