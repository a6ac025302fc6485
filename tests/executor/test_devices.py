"""Who computes what, in a run and in the simulation of it."""

from __future__ import annotations

from dataclasses import replace

from executor.devices import CPU, Devices, worker_for
from specsim.hardware import EMULATED, IN_TURN
from specsim.simulator.pricing import workers
from tests.specsim import plans

STREAMS = ("cpu", "cpu.draft", "gpu", "gpu.draft", "h2d", "h2d.kv", "h2d.act", "d2h", "disk")


def test_who_takes_turns_is_who_shares_a_thread() -> None:
    bare, real = plans.case(gpu=False).machine, plans.case(gpu=True).machine
    assert real.gpu is not None
    emulated = replace(real, gpu=replace(real.gpu, name=EMULATED))
    assert (bare.in_turn, emulated.in_turn, real.in_turn) == (IN_TURN, IN_TURN, frozenset())
    worker = worker_for(Devices("gpu", CPU))
    shared = workers(IN_TURN, STREAMS)
    assert {stream: shared.get(stream, stream) for stream in STREAMS} == {stream: worker(stream) for stream in STREAMS}
