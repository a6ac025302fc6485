"""One pass of the target over its layers: prefill and verify are the same walk with other shapes.

Weights outer, batches and micro-batches inner. Every unit is fetched (if it is not in the fast memory), used by all
batches of the pass, and its ring slot handed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from specsim.cost import work as cost
from specsim.cost.shapes import PassShape
from specsim.cost.work import Work
from specsim.decision import AttentionPlacement, LayerPlacement, PartPlacement
from specsim.model import Model
from specsim.partition import LayerUnits, layer_units
from specsim.schedule.graph import Builder, Ring

Deps = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PassPlan:
    """What is fixed for a pass. `main` is the processor that layers run on unless their placement says otherwise."""

    model: Model
    layers: tuple[LayerPlacement, ...]
    main: str
    phase: str
    round: int
    micro_batches: int
    routed: bool = False


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
    for layer, place in enumerate(plan.layers):
        units = layer_units(model, model.layer_ffn(layer))
        site = f"L{layer:02d}"
        loads = f"{prefix}/{group}/{site}/load"
        fetched, in_ring = _fetch(b, f"{loads}_attention", place.attention, units.attention_bytes)
        outs = {w: walker.attention(site, place.attention, fetched, ready[w]) for w, walker in walkers.items()}
        if in_ring:
            b.ring.used_by(task for out in outs.values() for task in out)
        ready = _lower_ffn(b, plan, walkers, site, loads, place, units, outs, tokens)
    heads = {}
    for batch, shape in shapes.items():
        logits = (cost.head(model, shape.head_rows),)
        heads[batch] = (b.add(f"{prefix}/{batch}/head/logits", plan.main, "head", logits, ready[batch]),)
    return heads


def _lower_ffn(
    b: Builder,
    plan: PassPlan,
    walkers: Mapping[str, _LayerWalk],
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
        fetched, in_ring = _fetch(b, f"{loads}_ffn.{part}", where, units.part_bytes * share, router)
        users = []
        for batch, walker in walkers.items():
            end = walker.feed_forward(site, part, where, units, fetched, inputs[batch])
            ends[batch][where.processor] = end
            users.append(end)
        if in_ring:
            b.ring.used_by(users)
    return {batch: walker.join_ffn(site, ends[batch]) for batch, walker in walkers.items()}


def _fetch(
    b: Builder, name: str, place: AttentionPlacement | PartPlacement, byte_count: float, after: Deps = ()
) -> tuple[Deps, bool]:
    """Bring a unit to where it is used: the tasks to wait for, and whether it takes a ring slot.

    Disk to VRAM goes through a staging buffer in RAM; without a GPU the ring is in RAM and the disk fills it.
    """
    processor = place.projections if isinstance(place, AttentionPlacement) else place.processor
    work = b.copy(byte_count, pinned=place.weights != "pageable")
    if place.weights in ("vram", "ram") or (processor == "cpu" and place.weights != "disk"):
        return (), False
    if place.weights != "disk":
        return (b.add(name, "h2d", "load", work, b.ring.free() + after),), True
    if processor == "cpu":
        return (b.add(name, "disk", "read", work, b.ring.free() + after),), True
    read = b.add(name.replace("/load_", "/read_"), "disk", "read", work, b.disk_ring.free() + after)
    load = b.add(name, "h2d", "load", work, (*b.ring.free(), read))
    b.disk_ring.used_by((load,))
    return (load,), True


class _LayerWalk:
    """Lowers the layers of one batch. All layers have the same shape, so each kind of work is computed once."""

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
        self.kv_ring = Ring(2)
        self._ffn: dict[LayerUnits, tuple[Work, ...]] = {}
        self._ffn_out: tuple[str, int] | None = None

    def attention(self, site: str, place: AttentionPlacement, fetched: Deps, ready: Deps) -> Deps:
        """Every micro-batch of a layer's attention; returns the tasks after which the layer's FFN may start."""
        if place.processor == self.plan.main:
            lower = self._streamed if place.kv == "ram" and self.plan.main == "gpu" else self._local
        else:
            lower = self._cpu_core if place.projections == "gpu" else self._cpu_whole
        return tuple(
            lower(f"{self.prefix}/{site}", f"#{micro}" if self.plan.micro_batches > 1 else "", ready + fetched)
            for micro in range(self.plan.micro_batches)
        )

    def _local(self, at: str, micro: str, after: Deps) -> int:
        return self.b.add(f"{at}/attention{micro}", self.plan.main, "attention", self.attend, after)

    def _streamed(self, at: str, micro: str, after: Deps) -> int:
        """KV lives in RAM and visits VRAM; the new positions go back."""
        b = self.b
        if self.shape.cached:
            cache = b.add(f"{at}/kv_in{micro}", "h2d.act", "kv", self.kv_in, self.kv_ring.free())
            after = (*after, cache)
        done = b.add(f"{at}/attention{micro}", "gpu", "attention", self.attend, after)
        self.kv_ring.used_by((done,))
        b.add(f"{at}/kv_out{micro}", "d2h", "kv", self.kv_out, (done,))
        return done

    def _cpu_core(self, at: str, micro: str, after: Deps) -> int:
        """Projections on the GPU, softmax(QK)V on the CPU beside the cache."""
        b = self.b
        qkv = b.add(f"{at}/qkv{micro}", "gpu", "attention", self.qkv, after)
        down = b.add(f"{at}/qkv_out{micro}", "d2h", "transfer", self.qkv_out, (qkv,))
        core = b.add(f"{at}/attention{micro}", "cpu", "attention", self.core, (down,))
        up = b.add(f"{at}/heads_in{micro}", "h2d.act", "transfer", self.heads_in, (core,))
        return b.add(f"{at}/output{micro}", "gpu", "attention", self.output, (up,))

    def _cpu_whole(self, at: str, micro: str, after: Deps) -> int:
        """Projections and core on the CPU: the hidden states travel, the attention weights do not."""
        b = self.b
        down = b.add(f"{at}/hidden_out{micro}", "d2h", "transfer", self.hidden_micro, after)
        whole = b.add(f"{at}/attention{micro}", "cpu", "attention", self.attend, (down,))
        return b.add(f"{at}/hidden_in{micro}", "h2d.act", "transfer", self.hidden_micro, (whole,))

    def feed_forward(
        self, site: str, part: int, where: PartPlacement, units: LayerUnits, fetched: Deps, inputs: Deps
    ) -> int:
        b = self.b
        if units not in self._ffn:
            model = self.plan.model
            self._ffn[units] = (cost.feed_forward(model, units.ffn, self.shape.tokens, 1 / units.parts),)
        if where.processor != self.plan.main:
            if self._ffn_out is None or self._ffn_out[0] != site:
                down = b.add(f"{self.prefix}/{site}/ffn_out", "d2h", "transfer", self.hidden, inputs)
                self._ffn_out = (site, down)
            inputs = (self._ffn_out[1],)
        name = f"{self.prefix}/{site}/ffn.{part}"
        return b.add(name, where.processor, "ffn", self._ffn[units], inputs + fetched)

    def join_ffn(self, site: str, ends: Mapping[str, int]) -> Deps:
        """The last part on each processor; what the CPU computed comes back to the GPU."""
        main = self.plan.main
        joined = (ends[main],) if main in ends else ()
        if main == "gpu" and "cpu" in ends:
            back = self.b.add(f"{self.prefix}/{site}/ffn_in", "h2d.act", "transfer", self.hidden, (ends["cpu"],))
            joined += (back,)
        return joined
