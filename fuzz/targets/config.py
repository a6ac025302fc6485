"""A checkpoint's config.json and generation_config.json, here of one content, and the tensors that they ask for."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Final

from executor.checkpoint.config import to_architecture
from executor.checkpoint.names import all_sources
from specsim.bounded import loads
from specsim.errors import InputError
from specsim.model import from_config, to_config

_DIRECTORY: Final = Path("checkpoint")
_ROOT: Final = Path(__file__).parents[2]
SEEDS: Final = tuple(
    file.read_bytes()
    for folder, pattern in (("profiles/models", "*.json"), ("executor/demo", "*/config.json"))
    for file in sorted((_ROOT / folder).glob(pattern))
)
WORDS: Final = (
    "llama",
    "mixtral",
    "qwen2",
    "qwen3_moe",
    "llama3",
    "linear",
    "rope_scaling",
    "rope_parameters",
    "factor",
    "rope_type",
    "mlp_only_layers",
    "decoder_sparse_step",
    "layer_types",
    "sliding_attention",
    "head_dim",
    "full_attention",
    "eos_token_id",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "torch_dtype",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "num_experts",
    "float32",
)


def read(content: bytes) -> None:
    try:
        config = loads(content)
    except ValueError as error:
        raise InputError(f"is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError("is not a JSON object")
    model = from_config(config, name="model", where="config.json")
    assert from_config(to_config(model), name="model", where="config.json") == model
    architecture = to_architecture(model, config, config, _DIRECTORY)
    assert len(architecture.windows) == model.layers
    assert all(source.tensor for source in islice(all_sources(model, ()), 64))
