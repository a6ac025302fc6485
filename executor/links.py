"""Ways that bytes take, as fast as they go or held to a set bandwidth: so that a slow link, or the link of a GPU that
is not there, can be had on any machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from torch import Tensor

from specsim.hardware import Machine

#: copies are cut, so that streams that share a paced link take turns
CHUNK_BYTES = 4 << 20


class Pacer:
    """Holds traffic to `bytes_per_s`, with `latency_s` before every transfer.

    Transfers queue: one that is asked for at t, while the link is busy until u, occupies it from max(t, u) for
    latency + bytes / bandwidth. Waking up late does not count: what is asked for by then began when the link was free.
    The clock and the sleep are given for tests.
    """

    def __init__(
        self,
        bytes_per_s: float,
        latency_s: float = 0.0,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.bytes_per_s, self.latency_s = bytes_per_s, latency_s
        self._clock, self._sleep = clock, sleep
        self._free_at = float("-inf")
        self._late = 0.0  # how much later than it was free the last waiter woke up
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._clock()

    def begin(self) -> None:
        """A new transfer: the latency passes on the link."""
        self._occupy(self.latency_s, self._clock())

    def __call__(self, byte_count: int, since: float | None = None) -> None:
        """Return when `byte_count` bytes that began to move at `since` (default: now) have crossed the link."""
        self._occupy(byte_count / self.bytes_per_s, self._clock() if since is None else since)

    def _occupy(self, seconds: float, since: float) -> None:
        with self._lock:
            self._free_at = max(since - self._late, self._free_at) + seconds
            until, self._late = self._free_at, 0.0
        waited = False
        while (left := until - self._clock()) > 0:
            self._sleep(left)
            waited = True
        if waited:
            self._late = -left


class Link:
    """The way between RAM and VRAM, full duplex: copies in either direction, each paced if asked to."""

    def __init__(self, into: Pacer | None = None, back: Pacer | None = None) -> None:
        self._into, self._back = into, back

    def bring(self, into: Tensor, source: Tensor) -> int:
        """Copy to VRAM, equal shapes; returns the bytes that moved. On a CUDA stream the copy is only enqueued."""
        return _copy(self._into, into, source)

    def take_back(self, into: Tensor, source: Tensor) -> int:
        """Copy to RAM, likewise."""
        return _copy(self._back, into, source)


def disk_pacer(machine: Machine, throttle: Mapping[str, float]) -> Pacer | None:
    """What holds a disk to the rate that it is throttled to, if it is."""
    rate = throttle.get("disk")
    return None if rate is None else Pacer(rate, machine.disk.latency_s)


def link_of(machine: Machine, throttle: Mapping[str, float], *, cuda: bool) -> Link:
    """The link between RAM and VRAM: the real one, at its own speed or held to a rate; an emulated one goes as fast as
    the plan says, unless told otherwise."""
    rate = throttle.get("link")
    if machine.link is None or (rate is None and cuda):
        return Link()
    rate, latency = rate or machine.link.rate(pinned=True), machine.link.latency_s
    return Link(Pacer(rate, latency), Pacer(rate, latency))


def _copy(pacer: Pacer | None, into: Tensor, source: Tensor) -> int:
    if pacer is None:
        into.copy_(source, non_blocking=True)
        return source.nbytes
    pacer.begin()
    whole = into.is_contiguous()
    flat_into, flat = (into.view(-1), source.reshape(-1)) if whole else (into, source)
    step = max(1, CHUNK_BYTES // source.element_size()) if whole else max(1, len(flat))
    for first in range(0, len(flat), step):
        began = pacer.now()
        flat_into[first : first + step].copy_(flat[first : first + step])
        pacer(flat[first : first + step].nbytes, began)
    return source.nbytes
