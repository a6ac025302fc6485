"""A graph meets a machine: seconds and shared bandwidth for every task, then the event engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from specsim.cost import timing
from specsim.devices import bare
from specsim.hardware import Machine
from specsim.schedule.graph import Graph
from specsim.simulator import engine
from specsim.stages import among
from specsim.timeline.timeline import Span, Timeline


def price(graph: Graph, machine: Machine) -> tuple[list[float], list[timing.Demand]]:
    """Seconds of each task when alone, and its demand on shared pools. Equal works are priced once."""
    machine = among(machine, graph.tensor)
    known: dict[tuple[str, int], tuple[float, timing.Demand]] = {}
    seconds, demands = [], []
    for task in graph.tasks:
        key = (task.stream, id(task.work))  # the graph keeps its works alive, so ids are not reused
        priced = known.get(key)
        if priced is None:
            duration = timing.seconds(machine, task.stream, task.work)
            priced = known[key] = (duration, timing.demand(machine, task.stream, task.work, duration))
        seconds.append(priced[0])
        demands.append(priced[1])
    return seconds, demands


def run(graph: Graph, machine: Machine, in_turn: Collection[str] | None = None) -> tuple[list[float], list[float]]:
    """Start and end of every task, in seconds from the start of the graph. Streams of processors `in_turn` take turns;
    by default the machine says which these are."""
    seconds, demands = price(graph, machine)
    streams = [t.stream for t in graph.tasks]
    shared = workers(machine.in_turn if in_turn is None else in_turn, streams)
    return engine.run(streams, seconds, [t.deps for t in graph.tasks], demands, shared)


def workers(in_turn: Collection[str], streams: Iterable[str]) -> dict[str, str]:
    """What the event engine is told of streams that take turns: whose they are, and so that the target's go first."""
    return {stream: of for stream in dict.fromkeys(streams) if bare(of := timing.resource(stream)) in in_turn}


def simulate(graph: Graph, machine: Machine, in_turn: Collection[str] | None = None) -> Timeline:
    """The graph's timeline on `machine`, as `run` has it."""
    starts, ends = run(graph, machine, in_turn)
    spans = tuple(
        Span(t.name, t.stream, t.kind, start, end, sum(w.flops for w in t.work), sum(w.bytes for w in t.work))
        for t, start, end in zip(graph.tasks, starts, ends, strict=True)
    )
    return Timeline(spans, tuple(t.deps for t in graph.tasks))
