"""Models read from configs: what each family means, what is refused, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specsim import profiles
from specsim.errors import InputError
from specsim.model import FeedForward, Model, from_config, read_config, to_config
from tests.specsim import stories

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
MIXTRAL = LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
QWEN_MOE = LLAMA | {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}


def made(config: dict[str, Any], **changes: Any) -> Model:
    return from_config(config | changes, name="m", where="config.json")


def refused(config: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        made({k: v for k, v in (config | changes).items() if v is not ...})
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("config.json: ")
    return message.removeprefix("config.json: ")


# families


@pytest.mark.parametrize(
    ("family", "qkv_bias", "qk_norm"),
    [("llama", False, False), ("mistral", False, False), ("qwen2", True, False), ("qwen3", False, True)],
)
def test_families_differ_in_biases_and_norms(family: str, qkv_bias: bool, qk_norm: bool) -> None:
    model = made(LLAMA, model_type=family)
    assert (model.qkv_bias, model.output_bias, model.qk_norm) == (qkv_bias, False, qk_norm)
    # Q, K, V, O of 64 x (64 + 32 + 32 + 64), two norms of 64; biases of 64 + 32 + 32, QK norms of two heads of 16
    assert model.attention_parameters == 64 * 192 + 128 + 128 * qkv_bias + 32 * qk_norm
    assert model.ffn == FeedForward(256)


def test_llama_may_have_biases() -> None:
    model = made(LLAMA, attention_bias=True)
    assert (model.qkv_bias, model.output_bias) == (True, True)
    assert model.attention_parameters == 64 * 192 + 128 + 128 + 64


def test_experts_of_mixtral_and_of_qwen() -> None:
    assert made(MIXTRAL).ffn == FeedForward(256, experts=8, top_k=2)
    assert made(QWEN_MOE).ffn == FeedForward(32, experts=8, top_k=2)


def test_dense_layers_among_sparse_ones() -> None:
    listed, stepped = made(QWEN_MOE, mlp_only_layers=[1]), made(QWEN_MOE, decoder_sparse_step=2)
    assert [listed.layer_ffn(layer).is_moe for layer in range(3)] == [True, False, True]
    assert [stepped.layer_ffn(layer).is_moe for layer in range(3)] == [False, True, False]
    assert listed.layer_ffn(1) == FeedForward(256)
    assert made(QWEN_MOE).dense_ffn is None
    assert listed.ffn_kinds == {FeedForward(32, 8, 2): 2, FeedForward(256): 1}
    assert made(QWEN_MOE).ffn_kinds == {FeedForward(32, 8, 2): 3}


def test_head_dim_is_read_before_it_is_derived() -> None:
    assert made(LLAMA).head_dim == 16
    assert made(LLAMA, head_dim=128).head_dim == 128
    assert made(LLAMA, hidden_size=66, head_dim=16).hidden == 66


def test_attention_without_grouped_heads() -> None:
    assert made({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}).kv_heads == 4


@pytest.mark.parametrize(
    ("family", "switch", "window"),
    [
        ("mistral", {}, 512),
        ("mixtral", {}, 512),
        ("llama", {}, 512),
        ("qwen2", {}, None),  # a Qwen config states a window and does not use it
        ("qwen2", {"use_sliding_window": False}, None),
        ("qwen2", {"use_sliding_window": True}, 512),
        ("qwen3", {}, None),
        ("mistral", {"use_sliding_window": False}, None),
    ],
)
def test_sliding_window_and_its_switch(family: str, switch: dict[str, bool], window: int | None) -> None:
    config = MIXTRAL if family == "mixtral" else LLAMA
    assert made(config, model_type=family, sliding_window=512, **switch).sliding_window == window
    assert made(config, model_type=family, sliding_window=None, **switch).sliding_window is None


def test_dtype_by_either_key_or_by_force() -> None:
    assert made(LLAMA, torch_dtype="torch.float16").dtype == "float16"
    assert made({**LLAMA, "torch_dtype": None}, dtype="float32").dtype == "float32"
    assert from_config(LLAMA, name="m", where="x", dtype="float32").element_bytes == 4


# sizes


def test_parameters_by_hand() -> None:
    model = stories.model()
    assert model.attention_parameters == 4 * (6 + 3 + 3 + 6) + 8
    assert model.layer_parameters(model.ffn) == 80 + 96
    assert model.parameters == 2 * 176 + 2 * 10 * 4 + 4
    assert model.active_parameters == 2 * 176 + 10 * 4 + 4
    assert model.weight_bytes == 2 * 436
    assert model.kv_bytes_per_token_layer == 2 * 1 * 3 * 2


def test_a_tied_head_is_no_further_parameter() -> None:
    assert stories.model(tied=True).parameters == stories.model().parameters - 40
    assert stories.model(tied=True).active_parameters == stories.model().active_parameters


def test_a_token_passes_through_its_own_experts_and_the_router() -> None:
    model = stories.model(family="mixtral", ffn=FeedForward(8, experts=4, top_k=2))
    assert model.layer_parameters(model.ffn) == 80 + 4 * 96 + 4 * 4
    assert model.active_parameters == 2 * (80 + 2 * 96 + 16) + 44


# refusals


def test_an_unknown_family_is_named_with_those_that_are_known() -> None:
    assert refused(LLAMA, model_type="gpt2") == (
        "model_type 'gpt2' is not supported; supported: llama, mistral, mixtral, qwen2, qwen3, qwen3_moe"
    )
    assert refused(LLAMA, model_type=...).startswith("model_type None is not supported")


@pytest.mark.parametrize(
    "key", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
def test_a_missing_key_is_named(key: str) -> None:
    assert refused(LLAMA, **{key: ...}) == f"has no {key}; it must be a whole number above zero"


@pytest.mark.parametrize("value", [0, -1, 2.5, "64", True, [64]])
def test_a_size_that_is_no_size_is_shown(value: Any) -> None:
    assert refused(LLAMA, vocab_size=value) == f"vocab_size is {value!r}; it must be a whole number above zero"


def test_optional_sizes_are_checked_too() -> None:
    assert refused(LLAMA, head_dim=0).startswith("head_dim is 0;")
    assert refused(LLAMA, num_key_value_heads=-2).startswith("num_key_value_heads is -2;")
    assert refused(LLAMA, sliding_window="wide").startswith("sliding_window is 'wide';")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000; it must be at most 1024"),
        ({"num_local_experts": 10**9}, "num_local_experts is 1000000000; it must be at most 1024"),
        ({"hidden_size": 2**31}, "hidden_size is 2147483648; it must be at most 2147483647"),
        ({"vocab_size": 10**4299}, "vocab_size is 1000"),  # products of such numbers cannot be written in a message
        ({"decoder_sparse_step": "2"}, "decoder_sparse_step is '2'; it must be a whole number above zero"),
        ({"decoder_sparse_step": -1}, "decoder_sparse_step is -1; it must be a whole number above zero"),
        ({"mlp_only_layers": [[0]]}, "mlp_only_layers is [[0]]; it must be a list of layers"),
        ({"mlp_only_layers": "0"}, "mlp_only_layers is '0'; it must be a list of layers"),
    ],
)
def test_sizes_that_would_take_all_memory_or_crash_are_refused(changes: dict[str, Any], problem: str) -> None:
    assert refused(MIXTRAL, **changes).startswith(problem)


def test_experts_have_to_be_counted() -> None:
    assert refused(MIXTRAL, num_local_experts=...).startswith("has no num_local_experts;")
    assert refused(MIXTRAL, num_experts_per_tok=...).startswith("has no num_experts_per_tok;")
    assert refused(MIXTRAL, num_experts_per_tok=9) == "num_experts_per_tok 9 is more than the 8 experts"


def test_heads_that_do_not_divide() -> None:
    assert refused(LLAMA, num_key_value_heads=3) == "num_attention_heads 4 is not a multiple of num_key_value_heads 3"
    assert refused(LLAMA, hidden_size=66) == "hidden_size 66 is not a multiple of num_attention_heads 4"


def test_an_unknown_dtype() -> None:
    assert refused(LLAMA, torch_dtype="int8") == (
        "dtype 'int8' is not supported; use one of: bfloat16, float16, float32"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON: "),
        ("[" * 100_000, "is not JSON: it is nested"),
        ("[1]", "is not a JSON object; "),
        ("{}", "model_type None is not supported; "),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_config(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'config.json'}: cannot be read: No such file or directory"


# names


def test_a_model_is_named_after_its_folder_or_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    (tmp_path / "other.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    assert read_config(folder).name == read_config(folder / "config.json").name == "my-model"
    assert read_config(tmp_path / "other.json").name == "other"


def test_a_linked_config_keeps_the_name_of_the_folder_that_links_it(tmp_path: Path) -> None:
    """A hub cache keeps files in `blobs` and links them into a folder per snapshot."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "0a1b").write_text(json.dumps(LLAMA), encoding="utf-8")
    (tmp_path / "snapshot" / "config.json").symlink_to(tmp_path / "blobs" / "0a1b")
    assert read_config(tmp_path / "snapshot").name == "snapshot"


# the way back


@pytest.mark.parametrize("name", profiles.names("model"))
def test_profiles_come_back_equal(name: str) -> None:
    model = read_config(profiles.find("model", name))
    assert from_config(to_config(model), name=name, where="x") == model
    assert json.loads(json.dumps(to_config(model))) == to_config(model)


@pytest.mark.parametrize(
    "model",
    [
        made(LLAMA, attention_bias=True, tie_word_embeddings=True, torch_dtype="float32"),
        made(LLAMA, model_type="qwen2", sliding_window=512, use_sliding_window=True),
        made(LLAMA, model_type="qwen2", sliding_window=512, use_sliding_window=False),
        made(QWEN_MOE, mlp_only_layers=[0, 2]),
        made(QWEN_MOE, decoder_sparse_step=3),
        made(MIXTRAL, num_local_experts=1, num_experts_per_tok=1),
    ],
    ids=["biases", "window", "unused window", "listed dense layers", "stepped dense layers", "one expert"],
)
def test_odd_models_come_back_equal(model: Model) -> None:
    assert from_config(to_config(model), name="m", where="x") == model
