"""Writes a generated pair: DIR/target and DIR/draft, and DIR/prompts.jsonl for models that have no tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from executor.pairs.grow import Pair, draft_recipes, hf_config, make_pair, target_recipes
from executor.pairs.prompts import random_prompts
from executor.pairs.write import write_checkpoint
from specsim.errors import InputError
from specsim.model import FeedForward, Model, from_config
from specsim.units import show

PROMPTS = 64
MAX_POSITIONS = 4096
#: beside the tensors: headers, indexes, configs, prompts
ELSE_BYTES = 16 << 20


def plan_pair(sizes: Mapping[str, Any], *, draft_layers: int | None, draft_ratio: float | None) -> Pair:
    """The pair of a target with these sizes (keys of a Hugging Face config; one expert makes it dense).

    The draft has `draft_layers` layers, or as many as make it nearest to `draft_ratio` times smaller, or a quarter of
    the target's. Raises InputError for sizes that make no model.
    """
    stated = {"model_type": "mixtral", "max_position_embeddings": MAX_POSITIONS, **sizes}
    target = from_config(stated, name="target", where="the target")
    if target.head_dim % 2:
        what = f"{target.hidden} / {target.heads} = {target.head_dim} is odd, which rotary embedding cannot be"
        raise InputError(what, where="the target's head size", hint="change --hidden or --heads")
    if not target.ffn.is_moe:
        target = replace(target, family="mistral", ffn=FeedForward(target.ffn.width))
    if draft_layers is None and draft_ratio is not None:
        draft_layers = min(range(1, target.layers + 1), key=lambda n: abs(make_pair(target, n).ratio - draft_ratio))
    return make_pair(target, max(1, target.layers // 4) if draft_layers is None else draft_layers)


def check_new(directory: Path) -> None:
    """Raise InputError for what exists, unless it is an empty directory."""
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise InputError("exists and is not an empty directory", where=str(directory), hint="name a new one with -o")


def check_room(directory: Path, pair: Pair) -> None:
    """Raise InputError as `check_new` does, and for a disk without room for the pair."""
    check_new(directory)
    parent = next(path for path in directory.absolute().parents if path.is_dir())
    needed, free = pair.target.weight_bytes + pair.draft.weight_bytes + ELSE_BYTES, shutil.disk_usage(parent).free
    if needed > free:
        what = f"the pair takes {show(needed, 'bytes')}, and {show(free, 'bytes')} are free"
        raise InputError(what, where=str(parent), hint="make room, or name another place with -o")


def make(directory: Path, pair: Pair, *, noise: float, seed: int, shard_bytes: int, say: Callable[[str], None]) -> None:
    """Write the pair. `say` hears how far it is. Raises InputError as `check_room` does, before anything is written."""
    check_room(directory, pair)
    models: list[tuple[Model, dict[str, Any]]] = [
        (pair.draft, draft_recipes(pair)),
        (pair.target, target_recipes(pair, noise)),
    ]
    total, done = pair.target.weight_bytes + pair.draft.weight_bytes, 0

    def written(count: int) -> None:
        nonlocal done
        done += count
        say(f"{show(done, 'bytes')} of {show(total, 'bytes')}")

    for model, recipes in models:
        config = hf_config(model)
        place = directory / model.name
        write_checkpoint(place, recipes, config, dtype=model.dtype, seed=seed, shard_bytes=shard_bytes, written=written)
    with (directory / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for number, ids in enumerate(random_prompts(pair.target.vocab, PROMPTS, seed)):
            file.write(json.dumps({"id": f"random-{number}", "input_ids": ids}) + "\n")
