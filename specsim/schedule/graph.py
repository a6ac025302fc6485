"""Tasks, and the builder that strings them together.

A task waits in the FIFO queue of its stream and for its dependencies, which always come earlier in the graph. Names
are the contract between prediction and measurement: `PHASE.ROUND/BATCH/SITE/OP[.PART][#MICRO]`, for example
`verify.0/A/L07/ffn.3` or `draft.0/B/S02/forward#1`. Phases: prefill, transition, draft, verify. Sites: `L07` a layer,
`S02` a draft step, `embed`, `head`, `draft`. The stream says on which device a task runs.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from specsim.cost import work as cost
from specsim.cost.work import Work
from specsim.devices import on
from specsim.positions import ARRIVING

TASK_NAME: Final = re.compile(
    r"(?P<phase>prefill|transition|draft|verify)\.(?P<round>\d+)/(?P<batch>[A-Z]+)/(?P<site>[A-Za-z]+\d*)"
    r"/(?P<op>[a-z_]+)(\.(?P<part>\d+))?(#(?P<micro>\d+))?",
    re.ASCII,
)

Slot = tuple[str, int]  # a ring's name and one of its staging buffers


@dataclass(frozen=True, slots=True)
class TaskName:
    """A task's name, taken apart."""

    phase: str
    round: int
    batch: str
    site: str
    op: str
    part: int | None = None
    micro: int | None = None


def parse(name: str) -> TaskName:
    """Take a task's name apart. Raises ValueError for what is not one."""
    match = TASK_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not the name of a task")
    words = match.groupdict()
    part, micro = (None if words[key] is None else int(words[key]) for key in ("part", "micro"))
    return TaskName(words["phase"], int(words["round"]), words["batch"], words["site"], words["op"], part, micro)


class Task(msgspec.Struct, frozen=True):
    """One piece of work on one stream. `kind` groups tasks in pictures and error tables; `deps` index the graph;
    `slot` is the staging buffer that the task is the first to write: a load, a read, a visiting cache that comes in,
    or the computation that makes such a cache where there is nothing to bring."""

    name: str
    stream: str
    kind: str
    work: tuple[Work, ...]
    deps: tuple[int, ...]
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """Tasks in submission order, and the indices of the tasks that end each round. Each stands for `tensor` devices
    that do the same."""

    tasks: tuple[Task, ...]
    round_ends: tuple[tuple[int, ...], ...] = ()
    tensor: int = 1


class Ring:
    """Staging buffers used in turn: the load into a slot waits until the slot's last users are done."""

    def __init__(self, name: str, slots: int) -> None:
        self._slots = deque((name, slot) for slot in range(slots))
        self._users: deque[tuple[int, ...]] = deque([()] * slots, maxlen=slots)

    @property
    def slot(self) -> Slot:
        """The slot that the next load fills."""
        return self._slots[0]

    def free(self) -> tuple[int, ...]:
        """The tasks that the next load has to wait for."""
        return self._users[0]

    def used_by(self, tasks: Iterable[int]) -> None:
        """Say who uses the slot that the last load filled; the ring moves on."""
        self._users.append(tuple(tasks))
        self._slots.rotate(-1)


class Rings:
    """Those of one device: `ring` for weights, `disk_ring` in RAM for those that come from disk, two buffers for
    visiting KV of the target, and of a pipeline's stage room for the `sweeps` of a prefill that are sent to it."""

    def __init__(self, device: int, ring_slots: int) -> None:
        self.ring = Ring(on("ring", device), ring_slots)
        self.disk_ring = Ring(on("disk_ring", device), ring_slots)
        self.kv_ring = Ring(on("kv_ring", device), 2)
        self.sweeps = Ring(on("sweeps", device), ARRIVING)
        self.kv_written: tuple[int, ...] = ()  # the last cache that went back; those before it went on the same stream


class Builder:
    """Collects tasks in submission order. The rings live on across layers, passes and rounds, so that loads run
    ahead over every such boundary and no buffer is used twice; the draft's KV has up to two of its own. Who runs a
    graph that goes on takes its tasks off; they keep their numbers."""

    def __init__(self, ring_slots: int, draft_slots: int = 2, tensor: int = 1) -> None:
        self.tasks: list[Task] = []
        self.round_ends: list[tuple[int, ...]] = []
        self.draft_ring = Ring("draft_ring", draft_slots)
        self._ring_slots, self._tensor = ring_slots, tensor
        self._rings: dict[int, Rings] = {}
        self._copies: dict[tuple[float, bool], tuple[Work, ...]] = {}
        self._taken = 0  # tasks that were taken off

    def rings(self, device: int = 0) -> Rings:
        """The rings of a device."""
        if device not in self._rings:
            self._rings[device] = Rings(device, self._ring_slots)
        return self._rings[device]

    def resize_rings(self, slots: int) -> None:
        """From here on rings have so many slots for weights, and nobody uses any of them yet."""
        self._ring_slots = slots
        self._rings.clear()

    def copy(self, byte_count: float, *, pinned: bool = True) -> tuple[Work, ...]:
        """The work of a copy; equal copies share one value, so that they are priced once."""
        key = (byte_count, pinned)
        if key not in self._copies:
            self._copies[key] = (cost.copy(byte_count, pinned=pinned),)
        return self._copies[key]

    def add(
        self,
        name: str,
        stream: str,
        kind: str,
        work: tuple[Work, ...],
        deps: tuple[int, ...] = (),
        slot: Slot | None = None,
    ) -> int:
        self.tasks.append(Task(name, stream, kind, work, deps, slot))
        return self._taken + len(self.tasks) - 1

    def take(self) -> list[Task]:
        """The tasks since the last call, which the builder forgets with all that it had of older rounds."""
        tasks, self.tasks = self.tasks, []
        self._taken += len(tasks)
        del self.round_ends[:-1]
        self._copies.clear()
        return tasks

    def graph(self) -> Graph:
        """Of all tasks: none may have been taken off."""
        return Graph(tuple(self.tasks), tuple(self.round_ends), self._tensor)
