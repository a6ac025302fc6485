"""Tiny random checkpoints of every supported family, saved by transformers, which the executor is compared with.

Weights are large (and norms and biases far from 1 and 0), so that a wrong one changes the output clearly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

COMMON: Final[dict[str, Any]] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE: Final[dict[str, Any]] = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
#: family or variant -> its model_type, and what its config has beyond COMMON
FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "llama": ("llama", {}),
    "llama3-rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-bias": ("llama", {"attention_bias": True}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": (
        "qwen2",
        {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "num_hidden_layers": 3,
            "mlp_only_layers": [1],
            "moe_intermediate_size": 24,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
    ),
}


def build(family: str, seed: int = 0, dtype: str = "float32", **config_overrides: Any) -> PreTrainedModel:
    """A tiny random model of a family of FAMILIES; `config_overrides` are keys of its config."""
    model_type, differences = FAMILIES[family]
    config = AutoConfig.for_model(model_type, **(COMMON | differences | config_overrides))
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draws)
            parameter.copy_(1 + 0.3 * noise if name.endswith("norm.weight") else 0.3 * noise)
    ready: PreTrainedModel = model.to(getattr(torch, dtype)).eval()
    return ready


def make(
    family: str,
    directory: str | Path,
    seed: int = 0,
    dtype: str = "float32",
    *,
    max_shard_size: int | str = "5GB",
    **config_overrides: Any,
) -> Path:
    """Save `build(...)` in `directory` as transformers does, in shards of at most `max_shard_size`; the directory."""
    build(family, seed, dtype, **config_overrides).save_pretrained(directory, max_shard_size=max_shard_size)
    return Path(directory)
