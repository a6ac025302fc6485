"""The header of a safetensors file."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Final

from executor.checkpoint.header import parse_header

_FILE = Path("model.safetensors")
_BYTES = {"float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4}
_BYTES |= {"float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2}
_SHARDS = sorted((Path(__file__).parents[2] / "executor" / "demo").glob("*/*.safetensors"))


def _json(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))


SEEDS: Final = (
    *(_json(shard)[:4096] for shard in _SHARDS),
    b'{"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}',
    b'{"a": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}',
    b'{"a": {"dtype": "U8", "shape": [3, 0], "data_offsets": [2, 2]}, "b": {"dtype": "I8"}}',
    (2).to_bytes(8, "little") + b"{}",
    (52).to_bytes(8, "little") + b'{"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}} ',
)
WORDS: Final = ("dtype", "shape", "data_offsets", "__metadata__", "F32", "BF16", "F8_E5M2", "BOOL")


def read(content: bytes) -> None:
    """What begins as JSON gets the length in front that a mutation would belie; anything else is a whole file."""
    whole = len(content).to_bytes(8, "little") + content if content[:1] in b"{[" else content
    for span in parse_header(BytesIO(whole), len(whole), _FILE).values():
        assert span.offset >= 8
        assert span.nbytes == math.prod(span.shape) * _BYTES.get(span.dtype, 1)
