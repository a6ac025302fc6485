"""Where each unit of the target lives. Placement is static: what does not live on the disk is loaded once."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from executor.checkpoint.checkpoint import Checkpoint
from executor.checkpoint.layout import (
    Layout,
    Unit,
    attention_unit,
    attention_weights,
    direct,
    ffn_unit,
    packed,
    part_weights,
)
from executor.checkpoint.read import Reader, aligned_buffer
from executor.devices import Devices
from executor.memory import Ledger
from executor.weights import AttentionWeights, PartWeights, Router
from specsim.decision import MEMORY_OF, AttentionPlacement, Decision, LayerPlacement, PartPlacement
from specsim.partition import layer_units

#: a unit: its layer, and None for the attention or the number of a part of the FFN
Key = tuple[int, int | None]
Weights = AttentionWeights | PartWeights
Place = AttentionPlacement | PartPlacement

#: the processors that reach each home without a ring
_NEAR = {"vram": {"gpu"}, "ram": {"cpu"}, "pinned": {"cpu"}, "pageable": {"cpu"}, "disk": set[str]()}


class Homes:
    """The target's units at home, under a plan's decision: all of them, or those of a pipeline stage's `layers`.
    `routers[layer]` routes on the main processor where the attention computes elsewhere."""

    def __init__(
        self, checkpoint: Checkpoint, decision: Decision, devices: Devices, reader: Reader, layers: range | None = None
    ) -> None:
        self.checkpoint, self.decision, self.devices, self.reader = checkpoint, decision, devices, reader
        self.layers = range(len(decision.layers)) if layers is None else layers
        model, size = checkpoint.architecture.model, decision.policy.part_bytes
        self.parts = [layer_units(model, model.layer_ffn(layer), size).parts for layer in range(model.layers)]
        self.routers: list[Router | None] = [None] * model.layers
        self._buffers: dict[Key, tuple[Layout, Tensor]] = {}
        self._views: dict[Key, Weights] = {}
        self._direct: dict[Key, Layout] = {}

    def load(self, ledger: Ledger) -> None:
        """Bring every unit home, each entered in the ledger before it is allocated. Those that stay in ordinary RAM lie
        one after another in one buffer, so that what is entered is what they take."""
        homes = {key: place.weights for key, place in self.places() if place.weights != "disk"}
        layouts = {key: packed(self.unit(key)) for key in homes}
        for key, layout in layouts.items():
            ledger.take(MEMORY_OF[homes[key]], "weights", layout.nbytes)
        together = [key for key, home in homes.items() if not _apart(home, self.devices)]
        sizes = [layouts[key].nbytes for key in together]
        rooms = dict(zip(together, torch.split(aligned_buffer(sum(sizes)), sizes), strict=True))
        for key, layout in layouts.items():
            buffer = resident(layout, homes[key], self.devices, self.reader, rooms.get(key))
            self._buffers[key] = layout, buffer
        if self.devices.main == "gpu":
            self._copy_routers()

    def places(self) -> Iterator[tuple[Key, Place]]:
        """Every unit with its place in the full placement."""
        for layer in self.layers:
            place = self.decision.layers[layer]
            yield (layer, None), place.attention
            for part, where in enumerate(place.ffn):
                yield (layer, part), where

    def streamed(self) -> list[Key]:
        """The units that some pass has to fetch: they do not live where it computes with them. Prefill computes on the
        main processor, and a tail elsewhere than the full placement."""
        placements = [self.decision.layers, *(tail.layers for tail in self.decision.tails)]
        keys = []
        for key, place in self.places():
            users = {_user(_place(layers[key[0]], key)) for layers in placements} | {self.devices.main}
            if users - _NEAR[place.weights]:
                keys.append(key)
        return keys

    def unit(self, key: Key, experts: Collection[int] | None = None) -> Unit:
        """The unit, of a part of a mixture only the `experts` asked for."""
        layer, part = key
        if part is None:
            return attention_unit(self.checkpoint, layer)
        return ffn_unit(self.checkpoint, layer, part, self.parts[layer], experts)

    def direct(self, key: Key, experts: Collection[int] | None = None) -> Layout:
        """How the unit is read from the disk. Those of whole units are made once."""
        if experts is not None:
            return direct(self.unit(key, experts))
        if key not in self._direct:
            self._direct[key] = direct(self.unit(key))
        return self._direct[key]

    def streamed_bytes(self, key: Key) -> int:
        """What the unit takes of a ring's slot."""
        on_disk = key not in self._buffers
        return max(packed(self.unit(key)).nbytes, self.direct(key).nbytes if on_disk else 0)

    def at_home(self, key: Key) -> tuple[Layout, Tensor]:
        """The unit's layout, and the buffer that it lives in."""
        return self._buffers[key]

    def weights(self, key: Key) -> Weights:
        """The unit's weights where it lives."""
        if key not in self._views:
            self._views[key] = views(*self._buffers[key], key)
        return self._views[key]

    def _copy_routers(self) -> None:
        placements = [self.decision.layers, *(tail.layers for tail in self.decision.tails)]
        for layer in self.layers:
            if any(layers[layer].attention.projections == "cpu" for layers in placements):
                layout = packed(self.unit((layer, None)))
                weights = attention_weights(layout, resident(layout, "ram", self.devices, self.reader))
                norm, router = weights.post_norm.to(self.devices.gpu, copy=True), weights.router
                if router is not None:
                    router = router.to(self.devices.gpu, copy=True)
                self.routers[layer] = Router(norm, router)


def resident(layout: Layout, home: str, devices: Devices, reader: Reader, room: Tensor | None = None) -> Tensor:
    """A buffer in `home` ("vram", "pinned", "pageable" or "ram") that holds the pieces of a packed layout: in ordinary
    RAM it is `room`, where that is given."""
    buffer = aligned_buffer(layout.nbytes) if room is None else room
    reader.read_pieces(layout, buffer)
    if _apart(home, devices):
        return buffer.pin_memory() if home == "pinned" else buffer.to(devices.gpu)
    return buffer


def _apart(home: str, devices: Devices) -> bool:
    """Whether CUDA allocates it."""
    return devices.cuda and home in ("pinned", "vram")


def new_buffer(byte_count: int, memory: str, devices: Devices) -> Tensor:
    """A buffer [bytes] of uint8 in "vram" or "ram", page-locked beside a GPU."""
    if memory == "vram" and devices.cuda:
        return torch.empty(byte_count, dtype=torch.uint8, device=devices.gpu)
    buffer = aligned_buffer(byte_count)
    return buffer.pin_memory() if devices.cuda else buffer


def views(layout: Layout, buffer: Tensor, key: Key) -> Weights:
    return attention_weights(layout, buffer) if key[1] is None else part_weights(layout, buffer)


def _user(place: Place) -> str:
    """The processor that a unit's weights are needed on."""
    return place.projections if isinstance(place, AttentionPlacement) else place.processor


def _place(place: LayerPlacement, key: Key) -> Place:
    return place.attention if key[1] is None else place.ffn[key[1]]
