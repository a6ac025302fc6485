"""How long each task had its resource: the quantity in which a prediction and a measurement can be compared.

Streams of one resource share it, side by side or in turn, and a GPU's kernels overlap as they please. Wherever k
streams of a resource run at once, each is given 1 / k of that time. The sum over a resource's tasks is then the time
that it was busy, on both sides.
"""

from __future__ import annotations

from collections import defaultdict

from specsim.cost.timing import resource
from specsim.timeline import Timeline


def occupied_seconds(timeline: Timeline) -> list[float]:
    """Seconds of its resource that each span took, in the order of the spans."""
    edges: dict[str, list[tuple[float, bool, int]]] = defaultdict(list)  # (time, begins, span); ends sort first
    for i, span in enumerate(timeline.spans):
        if span.seconds > 0:
            edges[resource(span.stream)] += [(span.start, True, i), (span.end, False, i)]
    taken = [0.0] * len(timeline.spans)
    for moments in edges.values():
        running: set[int] = set()
        before = 0.0
        for now, begins, i in sorted(moments):
            for other in running:
                taken[other] += (now - before) / len(running)
            before = now
            if begins:
                running.add(i)
            else:
                running.remove(i)
    return taken
