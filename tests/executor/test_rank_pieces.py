"""What the ranks of a run are made of, piece by piece: whose tasks are whose, what travels, what one timeline says."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from executor.decoder.cache import KvArena, Segment
from executor.engine import Engine
from executor.passes import Pass, Rows
from executor.ranks import together
from executor.ranks.cores import share_of
from executor.ranks.crew import Crew
from executor.ranks.messages import (
    End,
    Kind,
    Order,
    Prefill,
    Report,
    Room,
    Round,
    Share,
    hear,
    read_report,
    report,
    tell,
)
from executor.ranks.part import IN, OUT, Part
from executor.ranks.pulse import Reports
from executor.ranks.stage import stage_of
from executor.ranks.wire import receive_pass, send_pass
from executor.ranks.world import Channel, Launch, RankError, World
from specsim.errors import InputError
from specsim.hardware import Peer
from specsim.runtime import go_on
from specsim.schedule.lower import lower_prefill, lower_rounds
from specsim.schedule.round import RoundShape
from specsim.timeline.timeline import Span
from tests.executor import runs
from tests.specsim import stories


class Wire:
    """Both ends of a channel in one process: what is sent waits until it is received, in just the shape that it has."""

    def __init__(self) -> None:
        self.sent: deque[Tensor] = deque()
        self.on_send: Callable[[], None] = lambda: None

    def send(self, tensor: Tensor) -> int:
        self.sent.append(tensor.clone())
        self.on_send()
        return tensor.nbytes

    def receive(self, shape: Sequence[int], dtype: torch.dtype, device: Any = None) -> Tensor:
        tensor = self.sent.popleft()
        assert (tuple(tensor.shape), tensor.dtype) == (tuple(shape), dtype)
        return tensor


def wire() -> tuple[Channel, Wire]:
    both = Wire()
    return cast(Channel, both), both


def test_every_task_is_one_ranks_and_a_send_is_both_ends() -> None:
    model = stories.model(layers=4)
    machine = replace(stories.machine(bare=True), devices=2, node_devices=2, peer=Peer(1e9, 0.0))
    plan = runs.plan(model, strategy="interleaved", stages=2, batch=1)
    graph = lower_rounds(replace(plan.case, machine=machine), plan.decision, RoundShape(2.0, 4.0), rounds=2)
    parts = [Part(0, 2), Part(1, 2)]
    mine = [part.take(graph.tasks) for part in parts]
    sends = [task.name for task in graph.tasks if task.name.endswith("/send")]
    assert sends[:2] == ["verify.0/A/L01/send", "verify.0/A/L03/send"]
    names = [{task.name for task in tasks} for tasks in mine]
    assert names[0] & names[1] == set(sends)
    assert names[0] | names[1] == {task.name for task in graph.tasks}
    for rank, tasks in enumerate(mine):
        assert {task.stream for task in tasks} <= {"cpu", "cpu.head", "disk", OUT, IN}, "as on a machine of one device"
        assert all(task.slot is None or task.slot[0] == "ring" for task in tasks)
        where = {task.name: task.stream for task in tasks if task.name in sends}
        assert where["verify.0/A/L01/send"] == (OUT, IN)[rank]
        assert where["verify.0/A/L03/send"] == (IN, OUT)[rank]
        for number, task in enumerate(tasks):
            assert all(before < number for before in task.deps)
            assert not (task.deps and task.stream == IN), "it waits for the other rank, and for nothing here"
    layer = next(task for task in mine[1] if task.name == "verify.0/A/L02/attention")
    assert "verify.0/A/L01/send" in {mine[1][before].name for before in layer.deps}
    ends = parts[0].here(graph.round_ends[0])
    assert [mine[0][end].name for end in ends] == ["verify.0/A/head/logits", "verify.0/B/head/logits"]
    assert parts[1].here(graph.round_ends[0]) == []


def test_a_sweep_is_received_when_the_last_but_one_has_been_sent_on() -> None:
    machine = replace(stories.machine(bare=True), devices=3, node_devices=3, peer=Peer(1e9, 0.0))
    plan = runs.plan(stories.model(layers=3), stages=3, batch=1)
    graph = lower_prefill(replace(plan.case, machine=machine), plan.decision, [1] * 3)
    mine = Part(1, 3).take(graph.tasks)
    waits = {task.name: [mine[before].name for before in task.deps] for task in mine if task.stream == IN}
    assert waits == {
        "prefill.0/A/L00/send": [],
        "prefill.1/A/L00/send": [],
        "prefill.2/A/L00/send": ["prefill.0/A/L01/send"],
    }


def test_a_single_process_has_all_tasks_as_they_are() -> None:
    plan = runs.plan(stories.model(layers=2))
    graph = lower_rounds(plan.case, plan.decision, RoundShape(2.0, 4.0), rounds=1)
    part = Part(0, 1)
    assert part.take(graph.tasks) == list(graph.tasks)
    assert part.here(graph.round_ends[0]) == list(graph.round_ends[0])


@pytest.mark.parametrize(
    "order", [Room(70_000), Prefill(3, (5, 1, 7)), Round(9, RoundShape(3.0, 17.25, 0.1)), End(), End(failed=True)]
)
def test_orders_arrive_as_they_were_told(order: Order) -> None:
    channel, both = wire()
    tell(channel, order)
    assert hear(channel) == order
    assert not both.sent


def test_reports_arrive_as_they_were_made() -> None:
    channel, both = wire()
    share = Share((Span("a", "cpu", "ffn", 1.5, 2.25, 8.0, 4.0),), ((),), {"ram": 7}, {"disk": 9}, None)
    for said in (Report(Kind.READY), Report(Kind.FAILED, "no disk: é"), Report(Kind.DONE, share=share)):
        report(channel, said)
        assert read_report(channel) == said
    assert not both.sent


def test_a_pass_arrives_with_its_rows_places_and_micro_batches() -> None:
    channel, both = wire()
    arena, there = (KvArena([torch.zeros(2, 1, 10, 1)]) for _ in range(2))
    first, second, third = (arena.take(size) for size in (3, 4, 3))
    arena.give_back(first)
    arena.give_back(third)
    scattered = arena.take(5)  # around the second
    micro = [Rows(slice(0, 1), slice(0, 2)), Rows(slice(1, 2), slice(2, 5)), Rows(slice(2, 2), slice(5, 5))]
    segments = [Segment(0, 2, 3), Segment(2, 3, 0)]
    sent = Pass((), segments, [scattered, second], micro, torch.tensor([3, 4, 0, 1, 2]))
    sent.hidden = torch.arange(10.0).view(5, 2)
    send_pass(channel, sent)
    p = receive_pass(channel, there, ())
    assert (p.segments, p.micro, p.positions.tolist()) == (segments, micro, [3, 4, 0, 1, 2])
    assert [cache.places.tolist() for cache in p.caches] == [scattered.places.tolist(), second.places.tolist()]
    assert all(cache.arena is there for cache in p.caches)
    assert channel.receive((1,), torch.int64).tolist() == [5]
    assert torch.equal(channel.receive((5, 2), torch.float32), sent.hidden)
    assert not both.sent


def test_an_empty_pass_brings_no_rows() -> None:
    channel, both = wire()
    send_pass(channel, Pass((), [], [], [Rows(slice(0, 0), slice(0, 0))], torch.empty(0, dtype=torch.int64)))
    p = receive_pass(channel, KvArena([torch.zeros(2, 1, 1, 1)]), ())
    assert p.empty
    assert p.micro[0].empty
    assert [tensor.tolist() for tensor in both.sent] == [[0]]


def test_a_rank_beats_until_its_last_report() -> None:
    channel, both = wire()
    with Reports(channel, beat_s=1e-3) as reports:
        beat = threading.Event()
        both.on_send = beat.set
        assert beat.wait(30.0)
        reports.say(Report(Kind.DONE), last=True)
        reports.say(Report(Kind.READY))
    said = []
    while both.sent:
        said.append(read_report(channel).kind)
    assert set(said[:-1]) == {Kind.BEAT}
    assert said[-1] is Kind.DONE, "after which nobody listens"


@pytest.fixture
def sigterm() -> Iterator[None]:
    """As it was before: a crew that ends with an error leaves it ignored, for the process is to end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN


@pytest.mark.usefixtures("sigterm")
def test_a_rank_that_is_silent_ends_the_run() -> None:
    """Its connection is open, and nothing comes."""
    closed = threading.Event()

    class Silence:
        def send(self, tensor: Tensor) -> int:
            return tensor.nbytes

        def receive(self, *_: Any) -> Tensor:
            assert closed.wait(30.0)
            raise RankError("rank 1 is gone")

    world = cast(World, type("Two", (), {"desks": {1: Silence()}, "abort": lambda self, last: closed.set()})())
    with (
        pytest.raises(RankError, match="rank 1 has been silent for 30 beats"),
        Engine() as engine,
        Crew(world, beat_s=1e-3) as crew,
    ):
        crew.watch(engine)
    assert closed.is_set(), "what waited for it waits no more"


def test_one_timeline_of_two_ranks() -> None:
    """A send begins where the rows leave and ends where they are."""
    first = Share(
        (
            Span("a", "cpu", "ffn", 0.0, 2.0),
            Span("s", OUT, "send", 2.0, 2.5, bytes=8),
            Span("t", IN, "send", 0.0, 5.5),
            Span("z", "cpu.head", "head", 5.5, 6.0),
        ),
        ((), (0,), (), (2,)),
        {"ram": 5},
        {OUT: 8, IN: 8, "disk": 3},
    )
    second = Share(
        (
            Span("s", IN, "send", 0.0, 3.0),
            Span("b", "cpu", "ffn", 3.0, 5.0),
            Span("t", OUT, "send", 5.0, 5.1),
        ),
        ((), (0,), (1,)),
        {"ram": 7},
        {OUT: 8, IN: 8},
    )
    whole = together.timeline([first, second])
    assert [(s.name, s.stream, s.start, s.end) for s in whole.spans] == [
        ("a", "cpu", 0.0, 2.0),
        ("s", "peer", 2.0, 3.0),
        ("z", "cpu.head", 5.5, 6.0),
        ("b", "cpu@1", 3.0, 5.0),
        ("t", "peer@1", 5.0, 5.5),
    ]
    assert whole.preds == ((), (0,), (4,), (1,), (3,))
    assert together.moved([first, second]) == {"peer": 8, "disk": 3, "peer@1": 8}
    assert together.fullest([first, second]) == {"ram": 7}


def test_only_torchrun_makes_ranks() -> None:
    cluster = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert Launch.found(cluster) == Launch(0, 1, 0, 1), "a scheduler's variables alone mean nothing"
    assert Launch.found(cluster | {"TORCHELASTIC_RUN_ID": "x"}) == Launch(3, 8, 1, 2)


def test_ranks_of_a_machine_share_out_its_cores() -> None:
    def cores(local_rank: int, local_ranks: int, threads: int | None = None) -> tuple[list[int], int]:
        return share_of(Launch(0, 4, local_rank, local_ranks), [4, 5, 6, 7, 8], threads)

    assert [cores(rank, 2) for rank in range(2)] == [([4, 5], 2), ([6, 7], 2)]
    assert cores(1, 2, threads=1) == ([6, 7], 1)
    assert cores(1, 2, threads=3) == ([4, 5, 6, 7, 8], 3), "more threads than cores of its own: all share all"
    assert [cores(rank, 6) for rank in (0, 5)] == [([4, 5, 6, 7, 8], 1)] * 2


def test_ranks_must_be_as_many_as_stages() -> None:
    plan = runs.plan(stories.model(layers=4), stages=2)
    with pytest.raises(InputError, match=r"the plan has 2 stages, and 1 ranks run; start it as torchrun .*node 2 "):
        stage_of(plan, None)
    three = cast(World, type("Three", (), {"ranks": 3}))
    with pytest.raises(InputError, match="the plan has 2 stages, and 3 ranks run"):
        stage_of(plan, three)
    with pytest.raises(InputError, match="the plan splits each layer over 2 devices, which cannot be run"):
        stage_of(runs.plan(stories.model(layers=4), tensor=2), None)


def test_a_run_goes_on_with_as_many_ranks_as_it_had() -> None:
    assert go_on("out", 1) == "specsim run --resume out"
    assert go_on("out", 4) == "torchrun --nproc-per-node 4 -m specsim run --resume out"
