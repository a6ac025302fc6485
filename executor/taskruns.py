"""An engine's tasks by number: what is to run, runs, or has run, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from executor.lanes import Mark
from specsim.schedule.graph import Task

#: what a task does; the bytes that it moved (0 for computations), or None where there was nothing to do
Action = Callable[[], int | None]


@dataclass(slots=True)
class Run:
    """A task that is to run, runs, has run, or was dropped and counts as done."""

    task: Task
    action: Action
    done: bool = False
    dropped: bool = False
    mark: Mark | None = None
    started: float = 0.0
    ended: float = 0.0
    bytes: int = 0


def nothing() -> int:
    """What is left of a task that has run, so that what it held can go."""
    return 0


#: stands for those that were let go
_GONE: Final = Run(Task("gone", "", "", (), ()), nothing, done=True)


class Runs:
    """All tasks by number. After the first `spans`, those that have ended are let go, the oldest first."""

    def __init__(self, spans: int) -> None:
        self.spans = self._oldest = spans  # of those that may go
        self._count = 0
        self._held: dict[int, Run] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Run:
        return self._held.get(number, _GONE)

    def append(self, run: Run) -> None:
        self._held[self._count] = run
        self._count += 1

    def let_go(self) -> None:
        """Whoever depends on these later finds that they have ended, on their devices too."""
        while (run := self._held.get(self._oldest)) is not None and run.done:
            if run.mark is not None:
                run.mark.synchronize()
            del self._held[self._oldest]
            self._oldest += 1

    def first(self) -> list[tuple[int, Run]]:
        """Those that are kept, and their numbers."""
        return [(i, self._held[i]) for i in range(min(self.spans, self._count))]


def span(run: Run) -> tuple[float, float]:
    """Start and end on the clock of `time.perf_counter`, in seconds."""
    if run.mark is not None:
        return run.mark.span()
    return run.started, run.ended
