"""The configurations on which predictions are checked, and those by which the stated model error is found.

Two lists, and no configuration is in both. No number is fitted to `TEST`; what to mend next, and that the profile is to
measure layers of many small experts, was found by looking at its errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from specsim.decision import BATCHES, StrategyName

PROMPT_TOKENS, OUTPUT_TOKENS = 48, 24


@dataclass(frozen=True, slots=True)
class Shape:
    """A generated pair of models. `noise` is what `executor.pairs make --agreement 0.7` found."""

    hidden: int
    layers: int
    ffn: int
    experts: int
    top_k: int
    heads: int
    kv_heads: int
    draft_layers: int
    noise: float
    vocab: int = 8192


#: 0.7 GB each, so that a pass over one takes its time reading and multiplying, as one over a large model does
SHAPES: Final = {
    "few": Shape(1024, 5, 2816, 8, 2, 16, 4, 1, 0.07476806640625),  # few large experts
    "many": Shape(768, 6, 1024, 24, 4, 12, 4, 1, 0.0769195556640625),  # many small ones
    "dense": Shape(1536, 10, 5632, 1, 1, 24, 8, 2, 0.041259765625),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A target of which the fast memory holds as many bytes as `memory` of its weights; the rest comes from a disk that
    is held to `gigabytes_per_s`, or over an emulated link of that rate."""

    shape: str
    way: Literal["disk", "link"]
    gigabytes_per_s: float
    memory: float


@dataclass(frozen=True, slots=True)
class Configuration(Setting):
    """A setting, and what is decided in it: `batch` sequences in each of the strategy's batches; `gamma` 0 is plain
    decoding. `refill`: requests wait for places that become free."""

    strategy: StrategyName
    gamma: int
    batch: int
    refill: bool = False

    @property
    def name(self) -> str:
        where = f"{self.way}{self.gigabytes_per_s:g}-{self.memory:.0%}".replace("%", "")
        return f"{self.shape}-{where}-{self.strategy}-g{self.gamma}-b{self.batch}{'-refill' if self.refill else ''}"

    @property
    def requests(self) -> int:
        """As many as there are places, or twice as many where they are few or to be refilled."""
        places = self.batch * BATCHES[self.strategy]
        return 2 * places if places <= 8 or self.refill else places


FIT: Final = (
    Configuration("few", "disk", 0.5, 0.7, "serial", 0, 8),
    Configuration("few", "disk", 1, 0.55, "serial", 4, 16),
    Configuration("many", "disk", 1, 0.4, "merged", 3, 4),
    Configuration("dense", "disk", 1, 0.85, "interleaved", 2, 8),
    Configuration("dense", "disk", 0.25, 0.7, "serial", 6, 2),
    Configuration("few", "link", 2, 0.55, "serial", 1, 4),
    Configuration("many", "link", 1, 0.7, "interleaved", 4, 16),
    Configuration("dense", "link", 4, 0.7, "serial", 0, 32),
)

TEST: Final = (
    Configuration("few", "disk", 0.25, 0.55, "serial", 0, 1),
    Configuration("few", "disk", 0.5, 0.55, "serial", 3, 4),
    Configuration("few", "disk", 1, 0.7, "interleaved", 4, 8),
    Configuration("few", "disk", 2, 0.85, "merged", 2, 16),
    Configuration("few", "disk", 0.5, 0.85, "serial", 6, 32),
    Configuration("few", "disk", 1, 0.7, "merged", 0, 32),
    Configuration("many", "disk", 0.25, 0.7, "interleaved", 2, 2),
    Configuration("many", "disk", 0.5, 0.55, "merged", 4, 8),
    Configuration("many", "disk", 1, 0.85, "serial", 1, 64),
    Configuration("many", "disk", 2, 0.55, "serial", 0, 16),
    Configuration("many", "disk", 1, 0.7, "interleaved", 6, 4),
    Configuration("dense", "disk", 0.25, 0.85, "serial", 3, 8),
    Configuration("dense", "disk", 0.5, 0.7, "merged", 6, 1),
    Configuration("dense", "disk", 1, 0.55, "interleaved", 0, 16),
    Configuration("dense", "disk", 2, 0.85, "serial", 4, 16),
    Configuration("dense", "disk", 0.5, 0.85, "serial", 2, 32),
    Configuration("few", "link", 0.25, 0.85, "serial", 0, 16, refill=True),
    Configuration("few", "link", 1, 0.4, "interleaved", 3, 8),
    Configuration("few", "link", 4, 0.55, "merged", 0, 32),
    Configuration("few", "link", 8, 0.4, "serial", 2, 64),
    Configuration("many", "link", 0.5, 0.4, "merged", 6, 4),
    Configuration("many", "link", 2, 0.7, "serial", 0, 2),
    Configuration("many", "link", 4, 0.4, "interleaved", 1, 32),
    Configuration("many", "link", 1, 0.55, "serial", 3, 1),
    Configuration("dense", "link", 0.25, 0.7, "interleaved", 2, 4),
    Configuration("dense", "link", 0.5, 0.85, "serial", 0, 64),
    Configuration("dense", "link", 2, 0.7, "serial", 6, 8),
    Configuration("dense", "link", 8, 0.85, "merged", 4, 16),
)
