"""One pass of the target over its layers: prefill and verify are the same walk with other shapes.

Weights outer, batches and micro-batches inner. Every unit is fetched (if it is not in the fast memory), used by all
batches of the pass, and its ring slot handed on.

On several devices a batch's rows are sent from stage to stage, and from the last one home to the first, which has the
head. Streams are FIFO, and there the layers of the batches behind must not wait for the head of the one ahead: it has a
stream of its own. Where each layer is split, its devices add up what they have after attention and after the FFN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from specsim.cost import work as cost
from specsim.cost.shapes import PassShape
from specsim.cost.work import Work
from specsim.decision import CHUNK_TOKENS, AttentionPlacement, LayerPlacement, PartPlacement
from specsim.devices import on
from specsim.model import Model
from specsim.partition import LayerUnits, layer_units
from specsim.positions import chunk_rows
from specsim.schedule.graph import Builder, Ring, Slot
from specsim.stages import Layout

Deps = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PassPlan:
    """What is fixed for a pass. `model` is what one device has of each of `layers`, `main` the processor that these run
    on unless their placement says otherwise; without a `layout` all are on one device."""

    model: Model
    layers: tuple[LayerPlacement, ...]
    main: str
    phase: str
    round: int
    micro_batches: int
    part_bytes: int
    routed: bool = False
    layout: Layout | None = None
    chunk_tokens: int = CHUNK_TOKENS

    def stages(self) -> Layout:
        """Which layers are where."""
        return self.layout or Layout((range(len(self.layers)),))


def on_main(layers: Sequence[LayerPlacement], main: str) -> tuple[LayerPlacement, ...]:
    """The placement that prefill uses: the same homes, everything computed by the main processor."""
    moved: dict[LayerPlacement, LayerPlacement] = {}
    for place in layers:
        if place not in moved:
            attention = AttentionPlacement(place.attention.weights, main, main, place.attention.kv)  # type: ignore[arg-type]
            parts = tuple(PartPlacement(part.weights, main) for part in place.ffn)  # type: ignore[arg-type]
            moved[place] = LayerPlacement(attention, parts)
    return tuple(moved[place] for place in layers)


def lower_pass(
    b: Builder, plan: PassPlan, shapes: Mapping[str, PassShape], after: Mapping[str, Deps]
) -> dict[str, Deps]:
    """Append one pass over all layers; returns the tasks that end it, by batch.

    `shapes` and `after` (what a batch's first task waits for) are by batch name; batches share every weight fetch.
    """
    model, group = plan.model, "".join(shapes)
    prefix = f"{plan.phase}.{plan.round}"
    ready: dict[str, Deps] = {}
    for batch, shape in shapes.items():
        rows = (cost.copy(cost.hidden_bytes(model, shape.tokens)),)
        stream = "h2d.act" if plan.main == "gpu" else "cpu"
        ready[batch] = (b.add(f"{prefix}/{batch}/embed/lookup", stream, "embed", rows, after[batch]),)
    walkers = {batch: _LayerWalk(b, plan, shape, f"{prefix}/{batch}") for batch, shape in shapes.items()}
    tokens = sum(shape.tokens for shape in shapes.values())
    layout = plan.stages()
    several = len(layout.runs) > 1
    for stage, layers in enumerate(layout.runs):
        device = layout.device(stage)
        for batch, walker in walkers.items():
            walker.enter(device, ready[batch])
        for layer in layers:
            place, units = plan.layers[layer], layer_units(model, model.layer_ffn(layer), plan.part_bytes)
            site = f"L{layer:02d}"
            loads = f"{prefix}/{group}/{site}/load"
            name = f"{loads}_attention"
            fetched, ring = _fetch(b, plan.main, device, name, place.attention, units.attention_bytes)
            lanes = {w: walker.attention(site, place.attention, fetched, ready[w]) for w, walker in walkers.items()}
            outs = _in_turns(lanes)
            if ring:
                ring.used_by(task for out in outs.values() for task in out)
            outs = {batch: walker.reduce(site, "attention", outs[batch]) for batch, walker in walkers.items()}
            ready = _lower_ffn(b, plan, walkers, device, site, loads, place, units, outs, tokens)
        if several:
            free = _room(b, plan, stage + 1)
            site, far = f"L{layers[-1]:02d}", layout.far[stage]
            ready = {batch: walker.send(site, far, ready[batch] + free) for batch, walker in walkers.items()}
            if stage and plan.phase == "prefill":
                b.rings(device).sweeps.used_by(task for sent in ready.values() for task in sent)
    heads: dict[str, Deps] = {}
    for batch, shape in shapes.items():
        logits = (cost.head(model, shape.head_rows),)
        stream = f"{plan.main}.head" if several else plan.main
        heads[batch] = (b.add(f"{prefix}/{batch}/head/logits", stream, "head", logits, ready[batch]),)
    return heads


def _room(b: Builder, plan: PassPlan, stage: int) -> Deps:
    """What a pass waits for before it is sent to a stage. Batches of decode have room there for good; the sweeps of a
    prefill are as many as there are prompts. Home all may come that set out."""
    layout = plan.stages()
    if plan.phase != "prefill" or stage == len(layout.runs):
        return ()
    return b.rings(layout.device(stage)).sweeps.free()


def _in_turns(lanes: Mapping[str, Sequence[Iterator[int]]]) -> dict[str, Deps]:
    """Append the first step of every lane, then the second of each, and so on; returns the last tasks by batch.

    Streams are FIFO: were lanes appended one after another, the GPU's queue would hold a micro-batch's first step
    behind the last step of the one before, which waits for the CPU.
    """
    ends: dict[str, list[int]] = {batch: [-1] * len(steps) for batch, steps in lanes.items()}
    running = [(batch, micro, steps) for batch, many in lanes.items() for micro, steps in enumerate(many)]
    while running:
        more = []
        for batch, micro, steps in running:
            task = next(steps, None)
            if task is not None:
                ends[batch][micro] = task
                more.append((batch, micro, steps))
        running = more
    return {batch: tuple(tasks) for batch, tasks in ends.items()}


def _lower_ffn(
    b: Builder,
    plan: PassPlan,
    walkers: Mapping[str, _LayerWalk],
    device: int,
    site: str,
    loads: str,
    place: LayerPlacement,
    units: LayerUnits,
    inputs: Mapping[str, Deps],
    tokens: float,
) -> dict[str, Deps]:
    """All parts of a layer's FFN, on whichever processor each is placed; returns each batch's last tasks."""
    ends: dict[str, dict[str, int]] = {batch: {} for batch in walkers}
    share = 1.0
    router: Deps = ()
    if plan.routed and units.ffn.is_moe:
        share = cost.distinct_experts(units.ffn, tokens) / units.ffn.experts
        router = tuple(task for out in inputs.values() for task in out)
    for part, where in enumerate(place.ffn):
        fetched, ring = _fetch(b, plan.main, device, f"{loads}_ffn.{part}", where, units.part_bytes * share, router)
        users = []
        for batch, walker in walkers.items():
            end = walker.feed_forward(site, part, where, units, fetched, inputs[batch])
            ends[batch][where.processor] = end
            users.append(end)
        if ring:
            ring.used_by(users)
    joined = {batch: walker.join_ffn(site, ends[batch]) for batch, walker in walkers.items()}
    return {batch: walker.reduce(site, "ffn", joined[batch]) for batch, walker in walkers.items()}


def _fetch(
    b: Builder,
    main: str,
    device: int,
    name: str,
    place: AttentionPlacement | PartPlacement,
    byte_count: float,
    after: Deps = (),
) -> tuple[Deps, Ring | None]:
    """Bring a unit to where it is used: the tasks to wait for, and the ring of which it takes a slot.

    Disk to VRAM goes through a staging buffer in RAM; without a GPU the ring is in RAM and the disk fills it.
    """
    processor = place.projections if isinstance(place, AttentionPlacement) else place.processor
    work = b.copy(byte_count, pinned=place.weights != "pageable")
    if place.weights in ("vram", "ram") or (processor == "cpu" and place.weights != "disk"):
        return (), None
    own, h2d, disk = b.rings(device), on("h2d", device), on("disk", device)
    if place.weights != "disk":
        return (b.add(name, h2d, "load", work, own.ring.free() + after, own.ring.slot),), own.ring
    if processor == "cpu":
        ring = own.ring if main == "cpu" else own.disk_ring
        return (b.add(name, disk, "read", work, ring.free() + after, ring.slot),), ring
    staging = own.disk_ring
    read = b.add(name.replace("/load_", "/read_"), disk, "read", work, staging.free() + after, staging.slot)
    load = b.add(name, h2d, "load", work, (*own.ring.free(), read), own.ring.slot)
    staging.used_by((load,))
    return (load,), own.ring


class _LayerWalk:
    """Lowers the layers of one batch. All layers have the same shape, so each kind of work is computed once."""

    device: int
    began: Deps

    def __init__(self, b: Builder, plan: PassPlan, shape: PassShape, prefix: str) -> None:
        self.b, self.plan, self.shape, self.prefix = b, plan, shape, prefix
        model, micro = plan.model, shape.split(plan.micro_batches)
        whole = (cost.projections(model, micro.tokens), cost.attention_core(model, micro))
        element = model.element_bytes
        self.attend = whole
        self.core = whole[1:]
        self.qkv = (cost.projections(model, micro.tokens, out=False),)
        self.output = (cost.projections(model, micro.tokens, q=False, kv=False),)
        self.kv_in = (cost.copy(cost.kv_bytes(model, micro.cached)),)
        self.kv_out = (cost.copy(cost.kv_bytes(model, micro.tokens)),)
        width = micro.tokens * model.head_dim * element
        self.qkv_out = (cost.copy(width * (model.heads + 2 * model.kv_heads)),)
        self.heads_in = (cost.copy(width * model.heads),)
        self.hidden_micro = (cost.copy(cost.hidden_bytes(model, micro.tokens)),)
        self.hidden = (cost.copy(cost.hidden_bytes(model, shape.tokens)),)
        self._ffn: dict[LayerUnits, tuple[Work, ...]] = {}
        self._ffn_out: tuple[str, int] | None = None

    def enter(self, device: int, ready: Deps) -> None:
        """What follows runs on `device`, once the tasks `ready` have ended."""
        self.device, self.began = device, ready + self.b.rings(device).kv_written

    def add(
        self, name: str, stream: str, kind: str, work: tuple[Work, ...], deps: Deps, slot: Slot | None = None
    ) -> int:
        """A task on a stream of the device."""
        return self.b.add(name, on(stream, self.device), kind, work, deps, slot)

    def send(self, site: str, far: bool, rows: Deps) -> Deps:
        """The hidden states to the next stage, or home."""
        work = (cost.send(cost.hidden_bytes(self.plan.model, self.shape.tokens), far=far),)
        return (self.add(f"{self.prefix}/{site}/send", "peer", "send", work, rows),)

    def reduce(self, site: str, of: str, shares: Deps) -> Deps:
        """Add up what the devices of a tensor split have; of one device, what it has."""
        devices = self.plan.stages().tensor
        if devices == 1:
            return shares
        work = (cost.all_reduce(cost.hidden_bytes(self.plan.model, self.shape.tokens), devices),)
        return (self.add(f"{self.prefix}/{site}/{of}_reduce", "peer", "reduce", work, shares),)

    def attention(self, site: str, place: AttentionPlacement, fetched: Deps, ready: Deps) -> list[Iterator[int]]:
        """A lane for every micro-batch of a layer's attention: each step of it appends a task and yields it. After
        the last ones the layer's FFN may start."""
        if place.processor == self.plan.main:
            lower = self._streamed if place.kv == "ram" and self.plan.main == "gpu" else self._local
        else:
            lower = self._cpu_core if place.projections == "gpu" else self._cpu_whole
        return [
            lower(f"{self.prefix}/{site}", f"#{micro}" if self.plan.micro_batches > 1 else "", ready + fetched)
            for micro in range(self.plan.micro_batches)
        ]

    def _local(self, at: str, micro: str, after: Deps) -> Iterator[int]:
        yield self.add(f"{at}/attention{micro}", self.plan.main, "attention", self.attend, after)

    def _streamed(self, at: str, micro: str, after: Deps) -> Iterator[int]:
        """KV lives in RAM and visits VRAM; the new positions go back, and only then is the buffer free."""
        rings = self.b.rings(self.device)
        buffer, slot = rings.kv_ring.free(), rings.kv_ring.slot
        if self.shape.cached:
            # Not before the pass begins: until then nobody knows who is still there, and in which micro-batch. And not
            # before the pass before it has written its own positions back.
            buffer = (self.add(f"{at}/kv_in{micro}", "h2d.kv", "kv", self.kv_in, buffer + self.began, slot),)
        taken = None if self.shape.cached else slot
        done = self.add(f"{at}/attention{micro}", "gpu", "attention", self.attend, after + buffer, taken)
        back = self.add(f"{at}/kv_out{micro}", "d2h", "kv", self.kv_out, (done,))
        rings.kv_ring.used_by([back])
        rings.kv_written = (back,)
        yield done

    def _cpu_core(self, at: str, micro: str, after: Deps) -> Iterator[int]:
        """Projections on the GPU, softmax(QK)V on the CPU beside the cache."""
        yield (qkv := self.add(f"{at}/qkv{micro}", "gpu", "attention", self.qkv, after))
        yield (down := self.add(f"{at}/qkv_out{micro}", "d2h", "transfer", self.qkv_out, (qkv,)))
        yield (core := self.add(f"{at}/attention{micro}", "cpu", "attention", self.core, (down,)))
        yield (up := self.add(f"{at}/heads_in{micro}", "h2d.act", "transfer", self.heads_in, (core,)))
        yield self.add(f"{at}/output{micro}", "gpu", "attention", self.output, (up,))

    def _cpu_whole(self, at: str, micro: str, after: Deps) -> Iterator[int]:
        """Projections and core on the CPU: the hidden states travel, the attention weights do not."""
        yield (down := self.add(f"{at}/hidden_out{micro}", "d2h", "transfer", self.hidden_micro, after))
        yield (whole := self.add(f"{at}/attention{micro}", "cpu", "attention", self.attend, (down,)))
        yield self.add(f"{at}/hidden_in{micro}", "h2d.act", "transfer", self.hidden_micro, (whole,))

    def feed_forward(
        self, site: str, part: int, where: PartPlacement, units: LayerUnits, fetched: Deps, inputs: Deps
    ) -> int:
        if units not in self._ffn:
            most_rows = chunk_rows(units.ffn, units.parts, self.plan.chunk_tokens)
            work = cost.feed_forward(self.plan.model, units.ffn, self.shape.tokens, 1 / units.parts, most_rows)
            self._ffn[units] = (work,)
        if where.processor != self.plan.main:
            if self._ffn_out is None or self._ffn_out[0] != site:
                down = self.add(f"{self.prefix}/{site}/ffn_out", "d2h", "transfer", self.hidden, inputs)
                self._ffn_out = (site, down)
            inputs = (self._ffn_out[1],)
        name = f"{self.prefix}/{site}/ffn.{part}"
        return self.add(name, where.processor, "ffn", self._ffn[units], inputs + fetched)

    def join_ffn(self, site: str, ends: Mapping[str, int]) -> Deps:
        """The last part on each processor; what the CPU computed comes back to the GPU."""
        main = self.plan.main
        joined: Deps = (ends[main],) if main in ends else ()
        if main == "gpu" and "cpu" in ends:
            back = self.add(f"{self.prefix}/{site}/ffn_in", "h2d.act", "transfer", self.hidden, (ends["cpu"],))
            joined += (back,)
        return joined
