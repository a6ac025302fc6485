"""What stays and what visits lie close together: they take the RAM that the ledger says, and none lies on another."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from executor.checkpoint.checkpoint import open_checkpoint
from executor.checkpoint.layout import BLOCK, packed
from executor.checkpoint.read import Reader
from executor.devices import Devices
from executor.homes import Homes
from executor.links import Link
from executor.memory import Ledger
from executor.rings import Rings
from tests.executor import checkpoints, runs
from tests.executor.checkpoint_stories import read_packed
from tests.executor.runs import World


def loaded(folder: Path, world: World, **policy: Any) -> tuple[Homes, Ledger]:
    target = open_checkpoint(checkpoints.make("mixtral", folder / "target", seed=1))
    plan = runs.plan(target.architecture.model, world=world, **policy)
    homes, ledger = Homes(target, plan.decision, Devices("cpu"), Reader()), Ledger(plan.case.machine.budgets())
    homes.load(ledger)
    return homes, ledger


def touch(first: Tensor, second: Tensor) -> bool:
    return first.data_ptr() + first.nbytes == second.data_ptr()


def test_units_that_stay_lie_one_after_another_and_hold_their_weights(tmp_path: Path) -> None:
    homes, ledger = loaded(tmp_path, World(ffn="ram"))
    keys = [key for key, _ in homes.places()]
    buffers = [homes.at_home(key)[1] for key in keys]
    assert all(touch(*pair) for pair in pairwise(buffers))
    assert sum(buffer.nbytes for buffer in buffers) == ledger.items["ram", "weights"]
    for key, buffer in zip(keys, buffers, strict=True):
        layout, alone = read_packed(homes.unit(key))
        assert homes.at_home(key)[0] == layout == packed(homes.unit(key))
        for piece, at in zip(layout.unit.pieces, layout.offsets, strict=True):  # what lies between them is nothing
            assert torch.equal(buffer[at : at + piece.span.nbytes], alone[at : at + piece.span.nbytes])


def test_slots_lie_one_after_another_on_whole_blocks(tmp_path: Path) -> None:
    homes, ledger = loaded(tmp_path, World(), ring_slots=3)
    before = ledger.used("ram")
    rings = Rings(homes, Link())
    rings.allocate(ledger, 3)
    slots = [rings._slots["ring", i] for i in range(3)]
    assert all(touch(*pair) for pair in pairwise(slots))
    assert all(slot.data_ptr() % BLOCK == 0 for slot in slots)
    assert sum(slot.nbytes for slot in slots) == ledger.used("ram") - before
    assert min(slot.nbytes for slot in slots) >= max(homes.streamed_bytes(key) for key in homes.streamed())
