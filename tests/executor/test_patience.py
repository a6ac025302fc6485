"""A copy may take many times as long as it should, and no longer; how long that is, its bytes say."""

from __future__ import annotations

import pytest

from executor.engine import STALLED_S
from executor.patience import LEAST_S, TIMES, Patience
from specsim.cost import work as cost
from specsim.cost.timing import copy_rate
from specsim.schedule.graph import Task
from specsim.units import GiB
from tests.specsim import stories


def test_a_copy_may_take_many_times_what_the_plan_expects() -> None:
    machine = stories.machine(link=4e9, disk=4e9)
    task = Task("verify.0/A/L00/load_ffn.0", "h2d", "ffn", (cost.copy(8 * GiB),), ())
    rate = copy_rate(machine, "h2d", pinned=True)
    assert Patience(machine)(task) == pytest.approx(LEAST_S + TIMES * (machine.link.latency_s + 8 * GiB / rate))


def test_a_link_that_is_held_to_a_rate_has_the_time_that_this_takes() -> None:
    patience = Patience(stories.machine(link=4e9, disk=4e9), {"disk": 1e6, "link": 1e7})
    read, load = (Task("verify.0/A/L00/x", stream, "ffn", (cost.copy(1e9),), ()) for stream in ("disk", "h2d.kv"))
    assert patience(read) > LEAST_S + TIMES * 1e3
    assert LEAST_S + TIMES * 1e2 < patience(load) < LEAST_S + TIMES * 1e3


def test_what_only_computes_has_longer() -> None:
    assert (
        Patience(stories.machine(link=4e9, disk=4e9))(Task("verify.0/A/L00/ffn.0", "gpu.draft", "ffn", (), ()))
        == STALLED_S
    )
