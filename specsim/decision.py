"""What a plan decides: a strategy, the policy's numbers, and where every unit of the target lives and computes.

These are the values that the schedule is lowered from, by the simulator and by the executor alike. They are wire types
too: unknown keys are errors, and reading back what was written gives equal values.
"""

from __future__ import annotations

import string
from typing import Literal

import msgspec

from specsim.partition import PART_BYTES

#: where weights live. Without a GPU: "ram" or "disk". With one: "pinned" and "pageable" are both RAM.
Home = Literal["vram", "pinned", "pageable", "ram", "disk"]
Processor = Literal["gpu", "cpu"]
StrategyName = Literal["serial", "merged", "interleaved"]

#: tokens of a pass that an FFN computes at once where memory is not tight
CHUNK_TOKENS: int = 8192
#: the fewest: the rows of EXACT's products come by so many
LEAST_CHUNK: int = 32

#: batches in flight; interleaved ones may be more where they fill the stages of a pipeline
BATCHES: dict[str, int] = {"serial": 1, "merged": 2, "interleaved": 2}
#: what batches are called
LETTERS: str = string.ascii_uppercase

#: memory of each home
MEMORY_OF: dict[str, str] = {"vram": "vram", "pinned": "ram", "pageable": "ram", "ram": "ram", "disk": "disk"}


class AttentionPlacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attention of one layer. `projections` on the CPU only where the core is there too; `kv` is its cache's home."""

    weights: Home
    processor: Processor
    projections: Processor
    kv: Literal["vram", "ram"]


class PartPlacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a layer's FFN."""

    weights: Home
    processor: Processor


class LayerPlacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attention: AttentionPlacement
    ffn: tuple[PartPlacement, ...]


def homes_of(place: LayerPlacement) -> set[str]:
    """All homes of a layer's weights."""
    return {place.attention.weights, *(part.weights for part in place.ffn)}


class DraftPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the draft runs. `kv` "none" re-prefills the context every round; "ram" beside a GPU streams it through VRAM.

    `micro_batch` sequences draft together; `waits`: its weights are loaded only after the target's prefill.
    """

    processor: Processor
    kv: Literal["vram", "ram", "none"]
    micro_batch: int
    waits: bool = False


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers. `gamma` 0 is plain decoding, with no `draft` candidates come from the text itself; `batch` sequences
    in each of `batches` in flight; `prefill_batch` sequences per prefill sweep; attention in `verify_micro_batches` /
    `prefill_micro_batches` per layer and batch; `ring_slots` staging buffers of the largest unit, FFNs cut in parts of
    about `part_bytes`; `expert_fetch` "routed" waits for the router and moves only the experts that are asked for;
    `refill` puts a waiting request into each freed place; `kv_positions` is the most that the caches of all sequences
    hold together, in the target's as in the draft's: None is what the longest ones may need, with less they take
    turns. An FFN computes at most `chunk_tokens` tokens of a pass at once, and the head so many rows (if that is less
    than it would), so that what they take does not grow with the batch: all chunks while the weights are there. The
    draft reads prompts by as many tokens.

    Of a machine's devices `stages` x `tensor` are used: the target's layers are cut into `stages` runs, one after
    another (`partition.stage_layers`), and each layer's matrices into `tensor` shares, one for every device of a stage.
    The first stage also has the embedding, the head and the draft."""

    gamma: int
    batch: int
    batches: int
    prefill_batch: int
    ring_slots: int
    part_bytes: int = PART_BYTES
    verify_micro_batches: int = 1
    prefill_micro_batches: int = 1
    expert_fetch: Literal["all", "routed"] = "all"
    refill: bool = False
    draft: DraftPolicy | None = None
    stages: int = 1
    tensor: int = 1
    kv_positions: int | None = None
    chunk_tokens: int = CHUNK_TOKENS

    @property
    def in_flight(self) -> int:
        """Sequences that are decoded at a time."""
        return self.batch * self.batches

    @property
    def devices(self) -> int:
        """Devices that are used."""
        return self.stages * self.tensor

    @property
    def letters(self) -> str:
        """What the batches in flight are called."""
        return LETTERS[: self.batches]


def slots(strategy: str, policy: Policy) -> int:
    """Verify passes of a round: one for each batch, or one for all."""
    return policy.batches if strategy == "interleaved" else 1


class Tail(msgspec.Struct, frozen=True):
    """Where layers compute once at most `rows` sequences are left: every weight and cache stays in its home, but with
    fewer rows it pays to meet more of what lies in RAM there, on the CPU, instead of streaming it."""

    rows: int
    layers: tuple[LayerPlacement, ...]


class Decision(msgspec.Struct, frozen=True):
    """Everything that a schedule is lowered from, besides the case. `tails` come with falling `rows`."""

    strategy: StrategyName
    policy: Policy
    layers: tuple[LayerPlacement, ...]
    tails: tuple[Tail, ...] = ()

    def layers_at(self, rows: float) -> tuple[LayerPlacement, ...]:
        """The placement of a round with `rows` sequences."""
        layers = self.layers
        for tail in self.tails:
            if rows <= tail.rows:
                layers = tail.layers
        return layers
