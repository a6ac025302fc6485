"""What computing a model needs to know beyond its sizes: norms, rotary embedding, windows, routing, end tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from specsim.model import Model

TORCH_DTYPE = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding. `factor` 1 is none of the scalings; `low`, `high`, `original` only with Llama 3's scaling
    (wavelengths above original / low are stretched by `factor`, those below original / high are kept)."""

    theta: float
    factor: float = 1.0
    low: float | None = None
    high: float | None = None
    original: int | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder's numbers. `windows[layer]` is the sliding window in positions, or None; `renormalise`: the router's
    weights of the chosen experts are scaled to sum to 1; `eos`: tokens that end a request."""

    model: Model
    rms_eps: float
    rope: Rope
    windows: tuple[int | None, ...]
    renormalise: bool
    eos: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return TORCH_DTYPE[self.model.dtype]
