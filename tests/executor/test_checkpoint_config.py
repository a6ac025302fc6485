"""What a config.json says beyond sizes, in the words of transformers 5 and of those before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from executor.architecture import Rope
from executor.checkpoint.config import read_architecture
from specsim.errors import InputError
from tests.executor.checkpoint_stories import edit_json
from tests.executor.checkpoints import COMMON, FAMILIES


def config_of(family: str, directory: Path, **changes: Any) -> Path:
    """The config that transformers saves for a family of FAMILIES, then changed."""
    model_type, differences = FAMILIES[family]
    AutoConfig.for_model(model_type, **(COMMON | differences)).save_pretrained(directory)
    edit_json(directory / "config.json", **changes)
    return directory


def refusal(directory: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_architecture(directory)
    return str(caught.value)


def test_a_plain_llama(tmp_path: Path) -> None:
    found = read_architecture(config_of("llama", tmp_path))
    assert (found.rms_eps, found.rope, found.windows, found.eos) == (1e-6, Rope(10_000.0), (None, None), (2,))
    assert found.model.dtype == "bfloat16"  # neither the class nor this config says


def test_llama3_rope_as_both_generations_write_it(tmp_path: Path) -> None:
    rope = Rope(10_000.0, factor=8.0, low=1.0, high=4.0, original=64)
    assert read_architecture(config_of("llama3-rope", tmp_path)).rope == rope
    scaling = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    theta = scaling.pop("rope_theta")
    edit_json(tmp_path / "config.json", rope_parameters=..., rope_theta=theta, rope_scaling=scaling)
    assert read_architecture(tmp_path).rope == rope


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_linear_scaling(key: str, tmp_path: Path) -> None:
    old = {"rope_parameters": ..., "rope_theta": 5e5, "rope_scaling": {key: "linear", "factor": 4}}
    assert read_architecture(config_of("llama", tmp_path, **old)).rope == Rope(5e5, factor=4.0)


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    for family in ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe"):
        directory = config_of(family, tmp_path / family, rope_parameters=..., rms_norm_eps=..., norm_topk_prob=...)
        oracle = AutoConfig.from_pretrained(directory)
        found = read_architecture(directory)
        assert found.rope.theta == oracle.rope_parameters["rope_theta"], family
        assert found.rms_eps == oracle.rms_norm_eps, family
        if family == "qwen3_moe":
            assert (found.renormalise, oracle.norm_topk_prob) == (False, False)


def test_routing_weights_are_renormalised_by_mixtral_and_where_qwen_says_so(tmp_path: Path) -> None:
    assert read_architecture(config_of("mixtral", tmp_path)).renormalise
    assert read_architecture(config_of("qwen3_moe", tmp_path)).renormalise
    assert not read_architecture(config_of("qwen3_moe", tmp_path, norm_topk_prob=False)).renormalise


@pytest.mark.parametrize(
    ("family", "changes", "windows"),
    [
        ("llama", {"sliding_window": 8}, (None, None)),
        ("mistral", {}, (None, None)),
        ("mistral-window", {}, (8, 8)),
        ("mixtral", {"sliding_window": 8}, (8, 8)),
        ("qwen2", {"sliding_window": 8}, (None, None)),
        ("qwen2-window", {}, (None, 8, 8)),
        ("qwen2-window", {"layer_types": ...}, (None, 8, 8)),
        ("qwen2-window", {"layer_types": ..., "max_window_layers": ...}, (None, None, None)),
        ("qwen2-window", {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}, (8, None, None)),
        ("qwen2-window", {"use_sliding_window": False}, (None, None, None)),
        ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 8}, (8, 8, 8)),
    ],
)
def test_windows_of_each_layer(
    family: str, changes: dict[str, Any], windows: tuple[int | None, ...], tmp_path: Path
) -> None:
    assert read_architecture(config_of(family, tmp_path, **changes)).windows == windows


@pytest.mark.parametrize(
    ("config", "generation", "eos"),
    [
        ({"eos_token_id": 5}, None, (5,)),
        ({"eos_token_id": [5, 6]}, None, (5, 6)),
        ({"eos_token_id": ...}, None, ()),
        ({"eos_token_id": 5}, {"eos_token_id": [7, 8]}, (7, 8)),
        ({"eos_token_id": 5}, {"temperature": 0.6}, (5,)),
    ],
)
def test_end_tokens(
    config: dict[str, Any], generation: dict[str, Any] | None, eos: tuple[int, ...], tmp_path: Path
) -> None:
    directory = config_of("llama", tmp_path, **config)
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    assert read_architecture(directory).eos == eos


@pytest.mark.parametrize(
    ("family", "changes", "complaint"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; supported: silu"),
        ("llama", {"mlp_bias": True}, "mlp_bias is true"),
        ("llama", {"head_dim": 7}, "head_dim 7 is odd"),
        ("llama", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "rope_type 'yarn' is not supported"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "has no factor"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 0}}, "factor is 0"),
        ("llama", {"rope_parameters": [1]}, "rope_parameters is [1]"),
        ("llama", {"rope_parameters": {"full_attention": {}}}, "rope_parameters differ by kind of layer"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ("llama3-rope", {"rope_parameters": {"rope_type": "llama3", "factor": 8}}, "has no low_freq_factor"),
        ("llama", {"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
        ("qwen2-window", {"layer_types": ["full_attention"]}, "layer_types is ['full_attention']"),
        ("qwen2-window", {"layer_types": ["chunked_attention"] * 3}, "layer_types is ['chunked_attention',"),
        ("qwen2-window", {"layer_types": ..., "max_window_layers": "all"}, "max_window_layers is 'all'"),
    ],
)
def test_what_the_decoder_does_not_compute_is_refused(
    family: str, changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    assert f"config.json: {complaint}" in refusal(config_of(family, tmp_path, **changes))


def test_frequencies_that_cross_are_refused(tmp_path: Path) -> None:
    crossed = FAMILIES["llama3-rope"][1]["rope_parameters"] | {"low_freq_factor": 4.0}
    directory = config_of("llama", tmp_path, rope_parameters=crossed)
    assert "low_freq_factor 4 is not below high_freq_factor 4" in refusal(directory)


def test_a_damaged_generation_config_is_named(tmp_path: Path) -> None:
    directory = config_of("llama", tmp_path)
    (directory / "generation_config.json").write_text("{")
    assert "generation_config.json: " in refusal(directory)
