"""The layer-level pieces that systems are made of: copies, attention, feed-forward and draft, as tasks of one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from specsim.case import Case
from specsim.cost import work as cost
from specsim.cost.shapes import PassShape
from specsim.cost.work import Work
from specsim.model import Model
from specsim.partition import head_bytes
from specsim.schedule.graph import Builder, Graph

Side = Literal["gpu", "cpu"]


def attention_bytes(model: Model) -> float:
    """Attention weights, norms and router of one layer."""
    return (model.attention_parameters + model.router_parameters(model.ffn)) * model.element_bytes


def ffn_bytes(model: Model) -> float:
    """All experts of one layer, or its dense FFN."""
    return float(model.ffn.experts * model.expert_parameters(model.ffn) * model.element_bytes)


def layer_bytes(model: Model) -> float:
    return attention_bytes(model) + ffn_bytes(model)


def cache_bytes(model: Model, positions: float) -> float:
    """K and V of `positions` positions in all layers."""
    return model.layers * cost.kv_bytes(model, positions)


class Pass:
    """One pass of the target over its layers, laid task by task; every method returns the index of its task, to be
    named in the `after` of tasks that need it. Tasks on one stream run in the order in which they are laid."""

    def __init__(self, case: Case, phase: str, shape: PassShape) -> None:
        self.case, self.model, self.shape = case, case.target, shape
        self._phase = "prefill" if phase == "prefill" else "verify"
        self._builder = Builder(ring_slots=0)
        self._works: dict[object, tuple[Work, ...]] = {}

    @property
    def layers(self) -> range:
        return range(self.model.layers)

    @property
    def hidden_bytes(self) -> float:
        """Hidden states of all rows."""
        return cost.hidden_bytes(self.model, self.shape.tokens)

    @property
    def qkv_bytes(self) -> float:
        """Q, K and V of all rows."""
        width = (self.model.heads + 2 * self.model.kv_heads) * self.model.head_dim
        return self.shape.tokens * width * self.model.element_bytes

    @property
    def repeated(self) -> float:
        """Memory traffic per byte of a cache in transformers' attention: concatenated with what is new (read, written),
        then repeated for every query head (`repeat_kv`: written, read)."""
        return 2.0 + 2.0 * self.model.heads / self.model.kv_heads

    @property
    def touched(self) -> float:
        """Share of a layer's experts that the pass asks for."""
        return cost.distinct_experts(self.model.ffn, self.shape.tokens) / self.model.ffn.experts

    def load(self, layer: int, size: float, *, pinned: bool = True, after: Sequence[int] = ()) -> int:
        """Bring `size` bytes of weights to the GPU."""
        return self.copy(layer, "load", "h2d", size, kind="weights", pinned=pinned, after=after)

    def load_head(self, *, pinned: bool = True, after: Sequence[int] = ()) -> int:
        """Bring the output projection to the GPU."""
        work = self._builder.copy(head_bytes(self.model), pinned=pinned)
        return self._add("head/load", "h2d", "weights", work, after)

    def copy(
        self,
        layer: int,
        op: str,
        stream: str,
        size: float,
        *,
        kind: str = "copy",
        pinned: bool = True,
        after: Sequence[int] = (),
    ) -> int:
        """Move `size` bytes on "h2d", "d2h" or a stream of its own such as "h2d.kv"."""
        return self._add(f"L{layer:02d}/{op}", stream, kind, self._builder.copy(size, pinned=pinned), after)

    def projections(self, layer: int, on: Side = "gpu", *, after: Sequence[int] = ()) -> int:
        """Q, K, V and O products."""
        work = self._work("proj", cost.projections(self.model, self.shape.tokens))
        return self._add(f"L{layer:02d}/proj", on, "attention", work, after)

    def attention(self, layer: int, on: Side = "gpu", *, traffic: float = 1.0, after: Sequence[int] = ()) -> int:
        """The attention core. `traffic`: bytes moved in memory per byte of the cache, more than 1 where it is copied
        or converted before it is used."""
        core = cost.attention_core(self.model, self.shape)
        kv = cost.kv_bytes(self.model, self.shape.cached + self.shape.tokens)
        work = self._work(("attn", traffic), replace(core, bytes=core.bytes + (traffic - 1.0) * kv))
        return self._add(f"L{layer:02d}/attn", on, "attention", work, after)

    def ffn(self, layer: int, on: Side = "gpu", *, share: float = 1.0, after: Sequence[int] = ()) -> int:
        """`share` of the feed-forward network, for all rows."""
        work = self._work(("ffn", share), cost.feed_forward(self.model, self.model.ffn, self.shape.tokens, share))
        return self._add(f"L{layer:02d}/ffn", on, "ffn", work, after)

    def head(self, on: Side = "gpu", *, after: Sequence[int] = ()) -> int:
        """Logits of the rows that need them."""
        return self._add("head/head", on, "head", (cost.head(self.model, self.shape.head_rows),), after)

    def shift(self, size: float, *, after: Sequence[int] = ()) -> int:
        """Move `size` bytes of caches about in RAM."""
        return self._add("head/shift", "cpu", "kv", (Work("gemm", bytes=size),), after)

    def draft(self, works: tuple[Work, ...], *, after: Sequence[int] = ()) -> int:
        """All drafting of a round, on the GPU beside the target's work."""
        name = "draft.0/A/draft/forward"
        return self._builder.add(name, "gpu.draft", "draft", works, tuple(after))

    def graph(self) -> Graph:
        return self._builder.graph()

    def _work(self, key: object, work: Work) -> tuple[Work, ...]:
        """Equal works share one value, so that they are priced once."""
        return self._works.setdefault(key, (work,))

    def _add(self, place: str, stream: str, kind: str, work: tuple[Work, ...], after: Sequence[int]) -> int:
        return self._builder.add(f"{self._phase}.0/A/{place}", stream, kind, work, tuple(after))
