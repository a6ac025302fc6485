"""The generated models of a configuration, and its prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from executor.pairs.make import make, plan_pair
from executor.pairs.prompts import random_prompts
from specsim.units import MiB
from specsim.validation.configurations import PROMPT_TOKENS, Shape

SEED: Final = 0
SHARD_BYTES: Final = int(512 * MiB)


def make_models(shape: Shape, folder: Path, say: Callable[[str], None]) -> None:
    """Write `folder`/target and `folder`/draft, unless they are there already. What is half made is made anew."""
    if (folder / "target" / "config.json").exists():  # the last file to be written
        return
    shutil.rmtree(folder, ignore_errors=True)
    sizes = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.ffn,
        "num_local_experts": shape.experts,
        "num_experts_per_tok": shape.top_k,
        "vocab_size": shape.vocab,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "torch_dtype": "bfloat16",
    }
    pair = plan_pair(sizes, draft_layers=shape.draft_layers, draft_ratio=None)
    make(folder, pair, noise=shape.noise, seed=SEED, shard_bytes=SHARD_BYTES, say=say)


def write_prompts(shape: Shape, count: int, path: Path, seed: int) -> None:
    """`count` prompts of random tokens."""
    ids = [prompt[:PROMPT_TOKENS] for prompt in random_prompts(shape.vocab, count, seed)]
    lines = [json.dumps({"id": str(number), "input_ids": prompt}) for number, prompt in enumerate(ids)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
