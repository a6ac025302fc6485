"""The model profiles against a count of their checkpoints' tensors that shares nothing with specsim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest

from specsim.model import read_config

PROFILES = Path(__file__).parents[2] / "profiles" / "models"
NAMES = [
    *("mixtral-8x7b", "mixtral-8x22b", "mistral-7b", "tinyllama-1.1b"),
    *("llama-2-7b", "llama-2-70b", "llama-3.1-8b", "llama-3.2-1b", "llama-3.2-3b", "llama-3.3-70b"),
    *(f"qwen2.5-{size}" for size in ("0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")),
    *(f"qwen3-{size}" for size in ("0.6b", "1.7b", "4b", "8b", "14b", "32b", "30b-a3b", "235b-a22b")),
]
WITH_QKV_BIAS = {"qwen2"}
WITH_QK_NORM = {"qwen3", "qwen3_moe"}


def profile(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((PROFILES / f"{name}.json").read_text(encoding="utf-8"))
    return config


def tensors(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name (Qwen's; Mixtral has its own) and shape; a tied head has no tensor."""
    h, vocab, layers = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    yield "model.embed_tokens.weight", (vocab, h)
    for layer in range(layers):
        for name, shape in (*attention(config), *feed_forward(config)):
            yield f"model.layers.{layer}.{name}", shape
        yield f"model.layers.{layer}.input_layernorm.weight", (h,)
        yield f"model.layers.{layer}.post_attention_layernorm.weight", (h,)
    yield "model.norm.weight", (h,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocab, h)


def attention(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    h, heads = config["hidden_size"], config["num_attention_heads"]
    d = config.get("head_dim", h // heads)
    rows = {"q": heads * d, "k": config["num_key_value_heads"] * d, "v": config["num_key_value_heads"] * d}
    for name, outputs in rows.items():
        yield f"self_attn.{name}_proj.weight", (outputs, h)
        if config["model_type"] in WITH_QKV_BIAS:
            yield f"self_attn.{name}_proj.bias", (outputs,)
    yield "self_attn.o_proj.weight", (h, heads * d)
    if config["model_type"] in WITH_QK_NORM:
        yield "self_attn.q_norm.weight", (d,)
        yield "self_attn.k_norm.weight", (d,)


def feed_forward(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    h, experts = config["hidden_size"], config.get("num_experts", config.get("num_local_experts"))
    width = config.get("moe_intermediate_size", config["intermediate_size"])
    if experts:
        yield "mlp.gate.weight", (experts, h)
    for prefix in [f"mlp.experts.{e}" for e in range(experts)] if experts else ["mlp"]:
        yield f"{prefix}.gate_proj.weight", (width, h)
        yield f"{prefix}.up_proj.weight", (width, h)
        yield f"{prefix}.down_proj.weight", (h, width)


def count(config: dict[str, Any]) -> int:
    return sum(prod(shape) for _, shape in tensors(config))


def test_every_model_has_a_profile() -> None:
    assert sorted(file.stem for file in PROFILES.glob("*.json")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_sum_of_the_tensors(name: str) -> None:
    config = profile(name)
    assert count(config) == config["specsim"]["parameters"]
    assert read_config(PROFILES / f"{name}.json").parameters == config["specsim"]["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_says_where_it_comes_from(name: str) -> None:
    facts = profile(name)["specsim"]
    assert facts.keys() == {"title", "source", "parameters"}
    assert facts["source"]["kind"] == "datasheet"
    assert facts["source"]["document"].startswith("config.json of ")


def test_tensor_count_of_the_published_index() -> None:
    # model.safetensors.index.json of Qwen/Qwen3-235B-A22B: 36945 tensors, total_size 470187269120
    shapes = dict(tensors(profile("qwen3-235b-a22b")))
    assert len(shapes) == 36945
    assert 2 * sum(map(prod, shapes.values())) == 470_187_269_120


def test_head_dim_is_read_and_not_derived() -> None:
    derived_is_wrong = {
        name: (config["head_dim"], config["hidden_size"] // config["num_attention_heads"])
        for name, config in ((name, profile(name)) for name in NAMES)
        if config.get("head_dim", 0) * config["num_attention_heads"] not in (0, config["hidden_size"])
    }
    assert derived_is_wrong == {
        "qwen3-0.6b": (128, 64),
        "qwen3-4b": (128, 80),
        "qwen3-32b": (128, 80),
        "qwen3-30b-a3b": (128, 64),
        "qwen3-235b-a22b": (128, 64),
    }
    for name, (head_dim, _) in derived_is_wrong.items():
        assert read_config(PROFILES / f"{name}.json").head_dim == head_dim
    assert "head_dim" not in profile("llama-3.1-8b")
    assert read_config(PROFILES / "llama-3.1-8b.json").head_dim == 4096 // 32


def test_tied_heads_are_counted_once() -> None:
    tied = {name for name in NAMES if read_config(PROFILES / f"{name}.json").tied}
    assert tied == {
        *("llama-3.2-1b", "llama-3.2-3b", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b"),
        *("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"),
    }
    untied = profile("qwen3-0.6b") | {"tie_word_embeddings": False}
    assert count(untied) == 751_632_384  # what Qwen/Qwen3-0.6B's file holds: it stores the tied head again


def test_only_mistral_attends_through_a_window() -> None:
    windows = {name: read_config(PROFILES / f"{name}.json").sliding_window for name in NAMES}
    assert {name: window for name, window in windows.items() if window} == {"mistral-7b": 4096}
    assert profile("qwen2.5-7b")["sliding_window"] == 131072  # stated, and switched off by use_sliding_window
