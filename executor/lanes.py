"""What the tasks of a stream run on: a host thread, or a CUDA stream that a host thread feeds.

A host thread is done when the call returns. A CUDA stream is done later: its tasks leave a mark, later tasks of other
CUDA streams wait for it on the device, host threads wait for it themselves. Nothing ever waits for a whole device.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import torch


class Mark(Protocol):
    """The end of a task on a device."""

    def synchronize(self) -> None:
        """Let the calling host thread wait for it."""

    def span(self) -> tuple[float, float]:
        """Start and end on the clock of `time.perf_counter`, in seconds."""


class Lane(Protocol):
    def begin(self, marks: Sequence[Mark]) -> None:
        """Called before a task: what comes next waits for `marks`."""

    def end(self) -> Mark | None:
        """Called after it."""


class HostLane:
    """The thread itself computes or copies."""

    def __init__(self, stream: str) -> None:
        self.stream = stream

    def begin(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            mark.synchronize()

    def end(self) -> Mark | None:
        return None


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class CudaClock:
    """Brings times of CUDA events onto the host's clock: one event whose host time is known."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.zero = _event()
        self.zero.record(torch.cuda.current_stream(device))
        self.zero.synchronize()
        self.host = time.perf_counter()

    def at(self, event: torch.cuda.Event) -> float:
        return self.host + float(self.zero.elapsed_time(event)) / 1e3


class CudaMark:
    def __init__(self, clock: CudaClock, start: torch.cuda.Event, stop: torch.cuda.Event) -> None:
        self.clock, self.start, self.stop = clock, start, stop

    def synchronize(self) -> None:
        self.stop.synchronize()

    def span(self) -> tuple[float, float]:
        self.stop.synchronize()
        return self.clock.at(self.start), self.clock.at(self.stop)


class CudaLane:
    """A CUDA stream of its own, made current in the thread that feeds it."""

    def __init__(self, clock: CudaClock) -> None:
        self.clock = clock
        self.cuda = torch.cuda.Stream(clock.device)  # type: ignore[no-untyped-call]
        torch.cuda.set_device(clock.device)
        torch.cuda.set_stream(self.cuda)
        self.start = _event()

    def begin(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            if isinstance(mark, CudaMark):
                self.cuda.wait_event(mark.stop)
            else:
                mark.synchronize()
        self.start = _event()
        self.start.record(self.cuda)

    def end(self) -> Mark | None:
        stop = _event()
        stop.record(self.cuda)
        return CudaMark(self.clock, self.start, stop)
