"""The index of a checkpoint in several files, and the tensors that a config says there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from executor.checkpoint.checkpoint import parse_index

_FILE: Final = Path("checkpoint/model.safetensors.index.json")
SEEDS: Final = (
    json.dumps(
        {
            "metadata": {"total_size": 96},
            "weight_map": {
                "lm_head.weight": "model-00002-of-00002.safetensors",
                "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
            },
        }
    ).encode(),
)
WORDS: Final = (
    "weight_map",
    "../model.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "a/b",
    "a\\b",
    "a\x00",
    "\ud800",
    "a" * 300,
)


def read(content: bytes) -> None:
    for shard in parse_index(content, _FILE).values():
        path = _FILE.parent / shard
        assert (path.parent, path.name) == (_FILE.parent, shard), "a path escapes"
        assert len(shard.encode()) < 256, "a name that no file system has"
