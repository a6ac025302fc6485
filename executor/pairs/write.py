"""Writes recipes as a Hugging Face checkpoint: safetensors shards with an index, streamed, never held.

The format (https://huggingface.co/docs/safetensors): 8 bytes of header length, a JSON header, the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from executor.pairs.recipe import Recipe, chunks
from specsim.model import DTYPE_BYTES

_NAMES: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def write_checkpoint(
    directory: Path,
    recipes: Mapping[str, Recipe],
    config: Mapping[str, Any],
    *,
    dtype: str,
    seed: int,
    shard_bytes: int,
    written: Callable[[int], None],
) -> None:
    """Make `directory` and write it; `written` hears the bytes of every chunk.

    config.json comes last: a directory without one, such as an interrupted run leaves, is no checkpoint to anyone.
    """
    directory.mkdir(parents=True)
    shards = list(_shards(recipes, shard_bytes, DTYPE_BYTES[dtype]))
    files = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    for file, shard in zip(files, shards, strict=True):
        with (directory / file).open("wb") as stream:
            stream.write(_header(shard, dtype))
            for recipe in shard.values():
                for chunk in chunks(recipe, seed, dtype):
                    stream.write(chunk)
                    written(len(chunk))
    if len(shards) > 1:
        total = sum(recipe.elements for recipe in recipes.values()) * DTYPE_BYTES[dtype]
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        _write_json(directory / "model.safetensors.index.json", index)
    _write_json(directory / "config.json", config)


def _shards(recipes: Mapping[str, Recipe], shard_bytes: int, element_bytes: int) -> Iterator[dict[str, Recipe]]:
    """Consecutive tensors of at most `shard_bytes` together; a tensor that is bigger has a shard of its own."""
    shard: dict[str, Recipe] = {}
    held = 0
    for name, recipe in recipes.items():
        size = recipe.elements * element_bytes
        if shard and held + size > shard_bytes:
            yield shard
            shard, held = {}, 0
        shard[name] = recipe
        held += size
    yield shard


def _header(shard: Mapping[str, Recipe], dtype: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, recipe in shard.items():
        start, end = end, end + math.prod(recipe.shape) * DTYPE_BYTES[dtype]
        entries[name] = {"dtype": _NAMES[dtype], "shape": recipe.shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors start at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
