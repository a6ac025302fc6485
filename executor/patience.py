"""How long a run waits for a task before it takes it for one that hangs.

Only its deadline tells a disk that is gone from one that is slow, so it goes by the bytes that a task moves: many times
what the plan, or the rate that the link is held to, says that they take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from executor.engine import STALLED_S
from specsim.cost.timing import COPY_RESOURCES, resource, seconds
from specsim.hardware import Machine
from specsim.schedule.graph import Task

#: a copy may take so long whatever it moves: disks spin up, file servers start anew, other programs have their turn
LEAST_S: Final = 30.0
#: and so many times what it should take
TIMES: Final = 20.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a task may take. Computations, which have nothing to wait for, get as many as any task;
    `throttle` is bytes/s by what is slowed down, as `RunOptions` has it."""

    machine: Machine
    throttle: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, task: Task) -> float:
        name = resource(task.stream)
        expected = seconds(self.machine, task.stream, task.work)
        if name == "peer":
            return math.inf  # what another rank waits for, that rank notices
        if name not in COPY_RESOURCES:
            return STALLED_S + TIMES * expected
        rate = self.throttle.get("disk" if name == "disk" else "link")
        held = sum(work.bytes for work in task.work) / rate if rate else 0.0
        return LEAST_S + TIMES * (expected + held)
