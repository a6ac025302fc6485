"""Prompts of random tokens, for models without a tokenizer."""

from __future__ import annotations

import random

PROMPT_TOKENS = 64


def random_prompts(vocab: int, count: int, seed: int) -> list[list[int]]:
    """`count` prompts of PROMPT_TOKENS tokens each."""
    rng = random.Random(seed)
    return [[rng.randrange(vocab) for _ in range(PROMPT_TOKENS)] for _ in range(count)]
