"""A Hugging Face checkpoint directory, opened: that it is whole is known before a byte of its weights is read."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from executor.architecture import Architecture
from executor.checkpoint.config import read_architecture
from executor.checkpoint.header import TensorSpan, read_header
from executor.checkpoint.names import Shape, all_sources
from specsim.bounded import loads, read_bounded, short
from specsim.errors import InputError
from specsim.model import DTYPE_BYTES, Model

_INDEX: Final = "model.safetensors.index.json"
_SHOWN: Final = 8
#: so many missing tensors need no count
_MISSING: Final = 10_000
#: of at most as many characters as file systems take, and none that lead elsewhere or mean something to a terminal
_PLAIN_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._+=@ -]{1,255}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`tensors` has all that the architecture needs, in its dtype and shapes, and whatever else the files hold."""

    directory: Path
    architecture: Architecture
    tensors: Mapping[str, TensorSpan]


def open_checkpoint(directory: str | Path) -> Checkpoint:
    """Read the config, the index and the headers; no weights.

    Raises InputError where these and the sizes of the files do not agree: one line that lists each tensor that is
    missing, truncated, mistyped or misshaped. Where all weights have one supported dtype that is not the config's, the
    architecture has theirs.
    """
    directory = Path(directory)
    if not os.path.isdir(directory):
        raise InputError("is not a directory", where=str(directory), hint="give a Hugging Face checkpoint directory")
    architecture = read_architecture(directory)
    tensors, problems = _read_tensors(directory)
    expected = _expected(architecture.model, tensors)
    dtype = _dtype(architecture.model.dtype, [tensors[name].dtype for name in expected if name in tensors])
    problems += _disagreements(expected, dtype, tensors)
    if problems:
        lines = list(dict.fromkeys(problems))
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        hint = "get the checkpoint again, or its right config.json"
        raise InputError(", ".join(lines[:_SHOWN] + more), where=str(directory), hint=hint)
    model = replace(architecture.model, dtype=dtype)
    return Checkpoint(directory, replace(architecture, model=model), tensors)


def _read_tensors(directory: Path) -> tuple[dict[str, TensorSpan], list[str]]:
    """What the files hold, by name, and what of it is not there."""
    single = directory / "model.safetensors"
    if single.is_file():
        tensors = read_header(single)
        return tensors, list(_truncated(tensors))
    weight_map = _read_index(directory / _INDEX)
    files = {name: directory / name for name in sorted(set(weight_map.values()))}
    missing = [short(name) for name, file in files.items() if not file.is_file()]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        hint = "get the checkpoint again"
        raise InputError(f"{len(missing)} of {len(files)} shards missing: {shown}", where=str(directory), hint=hint)
    headers = {name: read_header(file) for name, file in files.items()}
    tensors = {name: headers[shard][name] for name, shard in weight_map.items() if name in headers[shard]}
    absent = [f"{short(name)} is missing" for name in weight_map if name not in tensors]
    return tensors, absent + list(_truncated(tensors))


def _read_index(file: Path) -> dict[str, str]:
    if not file.exists():
        hint = f"it needs model.safetensors or {_INDEX}"
        raise InputError("has no safetensors weights", where=str(file.parent), hint=hint)
    return parse_index(read_bounded(file), file)


def parse_index(content: bytes, file: Path) -> dict[str, str]:
    """Tensor -> shard, each a plain name: an index cannot make us read elsewhere. `file` is the name for messages."""
    try:
        index = loads(content)
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=str(file), hint="get the file again") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InputError("has no weight_map of tensors to files", where=str(file), hint="get the file again")
    for shard in set(weight_map.values()):
        if not _PLAIN_NAME.fullmatch(shard):
            hint = "shards must lie beside the index"
            raise InputError(f"names {short(shard)}, which is not a plain file name", where=str(file), hint=hint)
    return weight_map


def _expected(model: Model, tensors: Collection[str]) -> dict[str, Shape]:
    """The shape of each tensor that the model needs; not all, where a config asks for far more than there are."""
    expected: dict[str, Shape] = {}
    for source in all_sources(model, tensors):
        expected[source.tensor] = source.whole
        if len(expected) > len(tensors) + _MISSING:
            break
    return expected


def _truncated(tensors: Mapping[str, TensorSpan]) -> Iterator[str]:
    sizes = {file: file.stat().st_size for file in {span.file for span in tensors.values()}}
    for span in tensors.values():
        if span.end > sizes[span.file]:
            yield f"{short(span.name)} is truncated ({span.file.name} ends at byte {sizes[span.file]} of {span.end})"


def _dtype(stated: str, found: Collection[str]) -> str:
    """The config's dtype, unless all weights have another one."""
    only = set(found)
    return only.pop() if len(only) == 1 and only <= DTYPE_BYTES.keys() else stated


def _disagreements(expected: Mapping[str, Shape], dtype: str, tensors: Mapping[str, TensorSpan]) -> Iterator[str]:
    for name, shape in expected.items():
        span = tensors.get(name)
        if span is None:
            yield f"{short(name)} is missing"
        elif span.dtype != dtype:
            yield f"{short(name)} is {span.dtype}, not {dtype}"
        elif span.shape != shape:
            yield f"{short(name)} has shape {list(span.shape)}, not {list(shape)}"
