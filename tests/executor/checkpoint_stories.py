"""Checkpoints with a fault, or written in another way than transformers does, and the bytes of a unit read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from executor.checkpoint.layout import Layout, Unit, direct, packed
from executor.checkpoint.read import Reader, aligned_buffer


def saved_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, as safetensors reads them."""
    return {name: t for file in sorted(directory.glob("*.safetensors")) for name, t in load_file(file).items()}


def rewrite(directory: Path, tensors: dict[str, Tensor]) -> Path:
    """Replace a checkpoint's weights by one file of these."""
    for file in [*directory.glob("*.safetensors"), *directory.glob("*.index.json")]:
        file.unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")
    return directory


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; a change to `...` removes the key."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def write_safetensors(file: Path, header: Any, data: bytes = b"") -> Path:
    """A file with this header, right or wrong, without the padding that the library adds."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def read_packed(unit: Unit) -> tuple[Layout, Tensor]:
    layout = packed(unit)
    buffer = aligned_buffer(layout.nbytes)
    Reader().read_pieces(layout, buffer)
    return layout, buffer


def read_direct(unit: Unit) -> tuple[Layout, Tensor]:
    layout = direct(unit)
    buffer = aligned_buffer(layout.nbytes)
    Reader().read(layout, buffer)
    return layout, buffer
