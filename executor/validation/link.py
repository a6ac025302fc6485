"""How fast copies go here: an emulated link goes no faster, whatever it is held to.

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
from specsim.hardware import EMULATED, Link

SIZE: Final = 2 << 20  # bytes, about a part of the models that run here
WEIGHTS, SLOTS = 128, 3  # of that size each: what is copied lies in no cache, where it goes may
SAMPLES: Final = 120
PAUSE_S: Final = 5e-4  # between transfers, so that each is asked for by a thread that had nothing to do


def emulated_link(bytes_per_s: float) -> Link:
    """A link of that rate, or as fast as copies go here."""
    return Link(EMULATED, "emulated link", min(bytes_per_s, _copy_rate()), 1.0, 1.0, 0.0)


@cache
def _copy_rate() -> float:
    """Bytes per second."""
    weights, slots = (torch.ones(count, SIZE, dtype=torch.uint8) for count in (WEIGHTS, SLOTS))
    with _busy():
        return SIZE / median(_seconds(slots[n % SLOTS], weights[n % WEIGHTS]) for n in range(SAMPLES))


def _seconds(into: torch.Tensor, source: torch.Tensor) -> float:
    time.sleep(PAUSE_S)
    began = time.perf_counter()
    Way().bring(into, source)
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
