"""Which tasks of the graph of all are a rank's own, and what they are called among themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from specsim.devices import bare, device_of
from specsim.schedule.graph import Task, parse

#: the streams of a rank's two ends of the ways to its neighbours
OUT: Final = "peer.out"
IN: Final = "peer.in"
SEND: Final = "send"


@dataclass(slots=True)
class Part:
    """Of `ranks` devices, a stage each, the tasks of `rank`: those on its own streams, called as on a machine with one
    device, and its ends of the sends to and from its neighbours. For nothing else of other ranks any task waits, so
    that those are left out of what it depends on."""

    rank: int
    ranks: int
    _seen: int = 0
    _mine: int = 0
    _place: dict[int, int] = field(default_factory=dict)  # in the graph of all -> among this rank's

    def take(self, tasks: Iterable[Task]) -> list[Task]:
        """This rank's of the next tasks of the graph."""
        if self.ranks == 1:
            return list(tasks)
        mine = []
        for task in tasks:
            stream = self._stream(task)
            if stream is not None:
                slot = (bare(task.slot[0]), task.slot[1]) if task.slot is not None else None
                mine.append(msgspec.structs.replace(task, stream=stream, deps=tuple(self.here(task.deps)), slot=slot))
                self._place[self._seen] = self._mine
                self._mine += 1
            self._seen += 1
        return mine

    def here(self, tasks: Sequence[int]) -> list[int]:
        """Those of some tasks of the graph that are this rank's, as it counts them."""
        if self.ranks == 1:
            return list(tasks)
        return [self._place[task] for task in tasks if task in self._place]

    def _stream(self, task: Task) -> str | None:
        """The stream that a task has on this rank, None where it is another's."""
        device = device_of(task.stream)
        if bare(task.stream) != "peer":
            return bare(task.stream) if device == self.rank else None
        assert parse(task.name).op == SEND, f"{task.name}: ranks are stages, and talk by sends only"
        if device == self.rank:
            return OUT
        return IN if (device + 1) % self.ranks == self.rank else None
