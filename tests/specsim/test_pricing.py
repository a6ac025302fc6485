"""A graph on a machine: whose streams share a processor, and whose take turns."""

from __future__ import annotations

from itertools import pairwise

import pytest

from specsim import api
from specsim.cost.timing import resource
from specsim.timeline import Timeline
from tests.specsim import plans


def overlaps(timeline: Timeline, processor: str) -> bool:
    """Whether two tasks of a processor ever run at once."""
    spans = sorted((s.start, s.end) for s in timeline.spans if resource(s.stream) == processor and s.seconds > 0)
    return any(start < end - 1e-12 for (_, end), (start, _) in pairwise(spans))


@pytest.mark.parametrize("gpu", [False, True])
def test_draft_and_target_take_turns_on_a_cpu_and_share_a_real_gpu(gpu: bool) -> None:
    made = api.plan(plans.case(gpu=gpu), fix={"strategy": "interleaved", "gamma": 3, "batch": 2})
    timeline = api.simulate(made).round
    main = made.case.machine.main
    assert {main, f"{main}.draft"} <= {span.stream for span in timeline.spans}
    assert overlaps(timeline, main) == gpu
