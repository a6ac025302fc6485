"""The header of a safetensors file: which tensor lies at which bytes. Trusted with nothing that it says.

The format: an unsigned 64-bit little-endian length, that many bytes of JSON, the tensors' bytes; a tensor's
`data_offsets` count from the end of the JSON (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

from specsim.bounded import loads, short
from specsim.errors import InputError

#: the format's own limit
MAX_HEADER_BYTES: Final = 100_000_000
_MAX_RANK: Final = 16
#: safetensors' code of a dtype -> torch's name, bytes of an element
_DTYPES: Final = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U64": ("uint64", 8),
    "U32": ("uint32", 4),
    "U16": ("uint16", 2),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """A tensor's bytes: `offset` from the start of `file`. `dtype` is torch's name of it."""

    name: str
    file: Path
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.offset + self.nbytes


def read_header(file: Path) -> dict[str, TensorSpan]:
    """The tensors of a safetensors file by name. Raises InputError with the file and what is wrong in its header.

    Each tensor has the bytes of its dtype and shape, and none overlap; but a file that was cut short has tensors whose
    `end` is past the end of the file.
    """
    try:
        with file.open("rb") as stream:
            return parse_header(stream, os.fstat(stream.fileno()).st_size, file)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from None


def parse_header(stream: BinaryIO, size: int, file: Path) -> dict[str, TensorSpan]:
    """The tensors of a safetensors file of `size` bytes that `stream` is at the beginning of, and `file` the name."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        raise _damaged(file, f"is cut short: {size} bytes do not hold its header")
    if length > MAX_HEADER_BYTES:
        raise _damaged(file, f"says that its header has {length} bytes, more than {MAX_HEADER_BYTES}")
    try:
        header = loads(stream.read(length))
    except ValueError as error:
        raise _damaged(file, f"has a header that is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(file, "has a header that is not a JSON object")
    header.pop("__metadata__", None)
    spans = {name: _span(file, 8 + length, name, entry) for name, entry in header.items()}
    in_order = sorted((s for s in spans.values() if s.nbytes), key=lambda s: s.offset)
    for before, after in pairwise(in_order):
        if before.end > after.offset:
            raise _damaged(file, f"has overlapping tensors {short(before.name)} and {short(after.name)}")
    return spans


def _damaged(file: Path, problem: str) -> InputError:
    return InputError(problem, where=str(file), hint="the file is damaged, or is not safetensors: get it again")


def _span(file: Path, data: int, name: str, entry: Any) -> TensorSpan:
    """The span of one entry of a header whose tensors' bytes begin at `data`."""
    if not isinstance(entry, Mapping):
        raise _damaged(file, f"describes tensor {short(name)} by something that is not a JSON object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _damaged(file, f"has tensor {short(name)} of unknown dtype {short(str(dtype))}")
    shape, offsets = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if shape is None or len(shape) > _MAX_RANK:
        raise _damaged(file, f"has no valid shape of tensor {short(name)}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _damaged(file, f"has no valid data_offsets of tensor {short(name)}")
    dtype_name, element = _DTYPES[dtype]
    nbytes = offsets[1] - offsets[0]
    if nbytes != math.prod(shape) * element:
        raise _damaged(file, f"gives tensor {short(name)} {nbytes} bytes, but it is {list(shape)} of {dtype_name}")
    return TensorSpan(name, file, data + offsets[0], nbytes, dtype_name, shape)


def _counts(value: Any) -> tuple[int, ...] | None:
    """A JSON list of whole numbers that fit 63 bits; None of anything else."""
    if isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value):
        return tuple(value)
    return None
