"""Rotary position embedding (arXiv 2104.09864): each pair of a head's components turns by its frequency x position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from executor.architecture import Rope

Rotation = tuple[Tensor, Tensor]


def frequencies(rope: Rope, head_dim: int, device: torch.device) -> Tensor:
    """Radians per position of each pair of components: [d / 2] float32, theta^(-2i / d), scaled as `rope` says."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    plain = 1.0 / rope.theta**exponents
    if rope.low is None or rope.high is None or rope.original is None:
        return plain / rope.factor
    # Llama 3: waves shorter than original / high stay, those longer than original / low are stretched by `factor`,
    # and between the two the share that stays falls from 1 to 0, linear in the waves that `original` holds.
    waves = rope.original * plain / (2 * math.pi)
    stays = ((waves - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return (1 - stays) * plain / rope.factor + stays * plain


def rotation(rope: Rope, head_dim: int, positions: Tensor, dtype: torch.dtype) -> Rotation:
    """Cosine and sine of `positions` [T], computed in float32 and rounded to `dtype`: two [T, 1, d / 2]."""
    angles = positions[:, None].float() * frequencies(rope, head_dim, positions.device)
    return angles.cos().to(dtype)[:, None], angles.sin().to(dtype)[:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [T, heads, d] turned; component i is paired with i + d / 2, as Hugging Face checkpoints order them."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
