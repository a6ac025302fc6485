"""What an emulated link costs beyond its rate, measured: a copy is a thread's work, and the thread has to be woken.

The GPU's part is played by a CPU that computes all the time; so does another thread while this is measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from statistics import median
from typing import Final

import torch

from executor.links import Link as Way
from executor.links import Pacer
from specsim.hardware import Link

SIZE: Final = 2 << 20  # bytes, about a part of the models that run here
WEIGHTS, SLOTS = 128, 3  # of that size each: what is copied lies in no cache, where it goes may
SAMPLES: Final = 120
PACE: Final = 1e9  # bytes/s, slow enough for every machine
PAUSE_S: Final = 5e-4  # between transfers, so that each is asked for by a thread that had nothing to do


def emulated_link(bytes_per_s: float) -> Link:
    """A link of that rate, or as fast as copies go here, with the latency that transfers have."""
    copies, latency = _costs()
    return Link("emulated", "emulated link", min(bytes_per_s, copies), 1.0, 1.0, latency)


@cache
def _costs() -> tuple[float, float]:
    """Bytes per second of a copy, and seconds of a paced transfer beyond bytes over its pace."""
    weights, slots = (torch.ones(count, SIZE, dtype=torch.uint8) for count in (WEIGHTS, SLOTS))
    with _busy():
        copy = median(_seconds(Way(), slots[n % SLOTS], weights[n % WEIGHTS]) for n in range(SAMPLES))
        pace = Way(Pacer(PACE))
        paced = median(_seconds(pace, slots[n % SLOTS], weights[n % WEIGHTS]) for n in range(SAMPLES))
    return SIZE / copy, max(0.0, paced - SIZE / PACE)


def _seconds(way: Way, into: torch.Tensor, source: torch.Tensor) -> float:
    time.sleep(PAUSE_S)
    began = time.perf_counter()
    way.bring(into, source)
    return time.perf_counter() - began


@contextmanager
def _busy() -> Iterator[None]:
    """Another thread multiplies meanwhile."""
    done = threading.Event()
    rows, weights = torch.ones(64, 512), torch.ones(512, 512)

    def multiply() -> None:
        while not done.is_set():
            rows @ weights

    thread = threading.Thread(target=multiply, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
