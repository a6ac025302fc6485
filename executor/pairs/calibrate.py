"""Finds the noise at which a pair agrees as often as was asked: bisection, on the pair itself or on a smaller likeness.

Agreement depends on the number of layers, experts and tokens, and hardly on widths, over which everything averages:
the likeness of a pair that is too big to try is the same construction with narrow layers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from executor.pairs.agreement import agreement, load, matches
from executor.pairs.grow import Pair, draft_recipes, hf_config, make_pair, target_recipes
from executor.pairs.prompts import random_prompts
from executor.pairs.recipe import Recipe
from executor.pairs.write import write_checkpoint
from specsim.model import FeedForward, Model

ITSELF_BYTES = 200_000_000  # a target of up to this is calibrated on itself
LIKENESS_HIDDEN, LIKENESS_HEADS, LIKENESS_FFN = 128, 4, 128
PROMPTS, NEW_TOKENS = 24, 64
STEPS, TOLERANCE = 10, 0.01  # one standard deviation of the measurement is about 0.012


@dataclass(frozen=True, slots=True)
class Calibration:
    """`agreement` was measured with `noise`, on the pair itself or, where `likeness`, on one of narrow layers."""

    noise: float
    agreement: float
    likeness: bool


def calibrate(pair: Pair, wanted: float, *, seed: int, say: Callable[[str], None]) -> Calibration:
    """Computed in float32. Where even full noise agrees more often than `wanted` (0 <= wanted <= 1), noise is 1."""
    small = likeness(pair)
    prompts = random_prompts(small.target.vocab, PROMPTS, seed)
    with tempfile.TemporaryDirectory(prefix="specsim-pair-") as directory:
        draft = _load(Path(directory) / "draft", small.draft, draft_recipes(small), seed)

        def measure(noise: float, step: int) -> float:
            target = _load(Path(directory) / f"target{step}", small.target, target_recipes(small, noise), seed)
            found = agreement(matches(target, draft, prompts, NEW_TOKENS))
            say(f"noise {noise:.4f} agrees on {found:.3f} of the tokens")
            return found

        if wanted == 1:
            return Calibration(0.0, measure(0.0, 0), small != pair)
        low, high = 0.0, 1.0  # square roots of the noise: small noise is where agreement changes fastest
        noise, found = 1.0, measure(1.0, 0)
        for step in range(1, STEPS + 1 if found < wanted else 1):
            middle = (low + high) / 2
            noise = middle**2
            found = measure(noise, step)
            if abs(found - wanted) < TOLERANCE:
                break
            low, high = (middle, high) if found > wanted else (low, middle)
        return Calibration(noise, found, small != pair)


def likeness(pair: Pair) -> Pair:
    """The pair itself where it is small; else one of as many layers, experts and tokens, but narrow."""
    target = pair.target
    if target.weight_bytes <= ITSELF_BYTES:
        return pair
    kv_heads = max(1, LIKENESS_HEADS * target.kv_heads // target.heads)
    narrow = replace(
        target,
        hidden=min(target.hidden, LIKENESS_HIDDEN),
        heads=LIKENESS_HEADS,
        kv_heads=kv_heads,
        head_dim=LIKENESS_HIDDEN // LIKENESS_HEADS,
        ffn=FeedForward(min(target.ffn.width, LIKENESS_FFN), target.ffn.experts, target.ffn.top_k),
    )
    return make_pair(narrow, pair.draft.layers)


def _load(directory: Path, model: Model, recipes: dict[str, Recipe], seed: int) -> PreTrainedModel:
    write_checkpoint(
        directory,
        recipes,
        hf_config(model),
        dtype=model.dtype,
        seed=seed,
        shard_bytes=model.weight_bytes,
        written=lambda _: None,
    )
    return load(directory, torch.float32)
