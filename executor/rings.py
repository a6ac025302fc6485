"""Staging buffers that streamed units visit in turn. Which slot a unit takes, and when, the schedule says."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import torch
from torch import Tensor

from executor.checkpoint.layout import BLOCK, Layout, packed
from executor.homes import Homes, Key, Weights, new_buffer, views
from executor.links import Link
from executor.memory import Ledger
from executor.weights import AttentionWeights, PartWeights
from specsim.schedule.graph import Slot

#: bf16, fp16 and fp32 alike: not a number
POISON: Final = 0xFF


class Rings:
    """The slots of all rings, and which unit is in which. With `poison`, a slot that is taken over is first made
    useless, so that whoever still reads it, or reads it too early, shows."""

    def __init__(self, homes: Homes, link: Link, *, poison: bool = False) -> None:
        self.homes, self.link, self.poison = homes, link, poison
        self._slots: dict[Slot, Tensor] = {}
        self._views: dict[tuple[Slot, Key], Weights] = {}
        self._visiting: dict[tuple[str, Key], Weights] = {}
        self._holds: dict[Slot, list[tuple[str, Key]]] = {}
        self._taken: dict[str, int] = {}  # bytes by memory

    def allocate(self, ledger: Ledger, slots: int) -> None:
        """`ring` in the fast memory; beside a GPU also `disk_ring` in RAM, where something lives on the disk. Others
        that there were before are let go first; nobody uses them any more."""
        self._slots, self._views = {}, {}
        self.forget()
        for memory, size in self._taken.items():
            ledger.give_back(memory, "ring", size)
        self._taken = {}
        homes = self.homes
        streamed = homes.streamed()
        if not streamed:
            return
        fast = "vram" if homes.devices.main == "gpu" else "ram"
        memories = {"ring": fast}
        if fast == "vram" and any(place.weights == "disk" for _, place in homes.places()):
            memories["disk_ring"] = "ram"
        largest = -(-max(homes.streamed_bytes(key) for key in streamed) // BLOCK) * BLOCK
        for ring, memory in memories.items():
            with ledger.taking(memory, "ring", slots * largest):
                whole = new_buffer(slots * largest, memory, homes.devices)
            self._taken[memory] = slots * largest
            self._slots |= {(ring, i): slot for i, slot in enumerate(torch.split(whole, largest))}

    def read(self, slot: Slot, key: Key, experts: Collection[int] | None) -> Layout:
        """Disk to a slot in RAM."""
        layout = self.homes.direct(key, experts)
        self._claim(slot)
        self.homes.reader.read(layout, self._slots[slot])
        return layout

    def load(self, slot: Slot, key: Key, experts: Collection[int] | None) -> Layout:
        """RAM to a slot in VRAM: the unit in one copy, or only the experts asked for."""
        whole, source = self.homes.at_home(key)
        self._claim(slot)
        into = self._slots[slot]
        if experts is None:
            self.link.bring(into[: whole.nbytes], source)
            return whole
        layout = packed(self.homes.unit(key, experts))
        at = {piece.role: offset for piece, offset in zip(whole.unit.pieces, whole.offsets, strict=True)}
        for piece, offset in zip(layout.unit.pieces, layout.offsets, strict=True):
            first, size = at[piece.role], piece.span.nbytes
            self.link.bring(into[offset : offset + size], source[first : first + size])
        return layout

    def load_on(self, slot: Slot, source: Slot, layout: Layout) -> None:
        """What has just been read into a slot in RAM, on to a slot in VRAM."""
        self._claim(slot)
        self.link.bring(self._slots[slot][: layout.nbytes], self._slots[source][: layout.nbytes])

    def arrived(self, visits: Collection[str], slot: Slot, key: Key, layout: Layout, *, whole: bool) -> None:
        """A unit is now in a slot, for the passes named."""
        # Making views takes longer than all else the engine does for a task, so those of whole units are kept.
        if whole:
            if (slot, key) not in self._views:
                self._views[slot, key] = views(layout, self._slots[slot], key)
            weights = self._views[slot, key]
        else:
            weights = views(layout, self._slots[slot], key)
        self._holds[slot] = [(visit, key) for visit in visits]
        self._visiting.update(dict.fromkeys(self._holds[slot], weights))

    def attention(self, visit: str, layer: int) -> AttentionWeights:
        """For a task of pass `visit`: in the ring, if the unit has been brought there, else at home."""
        weights = self._visiting.get((visit, (layer, None))) or self.homes.weights((layer, None))
        assert isinstance(weights, AttentionWeights)
        return weights

    def part(self, visit: str, layer: int, part: int) -> PartWeights:
        """Likewise for a part of an FFN."""
        weights = self._visiting.get((visit, (layer, part)))
        if weights is None:  # which an empty part is not: routing may have asked for none of its experts
            weights = self.homes.weights((layer, part))
        assert not isinstance(weights, AttentionWeights)
        return weights

    def forget(self) -> None:
        """What visits is of no use to anybody any more."""
        self._visiting.clear()
        self._holds.clear()

    def _claim(self, slot: Slot) -> None:
        """The slot's last users are done: forget what it held."""
        for visit in self._holds.pop(slot, ()):
            self._visiting.pop(visit, None)
        if self.poison:
            self._slots[slot].fill_(POISON)
