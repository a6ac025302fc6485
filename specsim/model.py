"""A language model as sizes, read from a Hugging Face `config.json`: profile, checkpoint directory or plan file alike.

Only what planning needs is kept; `to_config` writes it back as a config that reads as the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from specsim.bounded import read_json
from specsim.errors import InputError

DTYPE_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
#: the name of each dtype's matrix throughput in a processor's `flops_per_s`
DTYPE_RATE: Final = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}

#: of layers, and of experts: what is done for each of them ends soon, whatever a config says
_MOST: Final = 1024
#: of any other size, so that all products of sizes are numbers that can be written
_LARGEST: Final = 2**31 - 1

#: model_type -> how the family differs from Llama
_FAMILIES: Final[dict[str, dict[str, bool]]] = {
    "llama": {},
    "mistral": {},
    "mixtral": {"moe": True},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "qwen3_moe": {"qk_norm": True, "moe": True},
}


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The gated FFN of a layer: `experts` of width `width`, `top_k` of them per token; dense is one of one."""

    width: int
    experts: int = 1
    top_k: int = 1

    @property
    def is_moe(self) -> bool:
        return self.experts > 1


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of a decoder. `sliding_window` is in positions (None: full attention); counts of parameters are exact."""

    name: str
    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_positions: int
    tied: bool
    dtype: str
    ffn: FeedForward
    dense_ffn: FeedForward | None = None  # of the layers in `dense_layers`, in MoE models that have such layers
    dense_layers: tuple[int, ...] = ()
    sliding_window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False

    @property
    def element_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    def layer_ffn(self, layer: int) -> FeedForward:
        if self.dense_ffn is not None and layer in self.dense_layers:
            return self.dense_ffn
        return self.ffn

    @property
    def ffn_kinds(self) -> dict[FeedForward, int]:
        """Layers by kind of FFN."""
        dense = len(self.dense_layers) if self.dense_ffn is not None else 0
        kinds = {self.ffn: self.layers - dense}
        if self.dense_ffn is not None and dense:
            kinds[self.dense_ffn] = dense
        return {kind: layers for kind, layers in kinds.items() if layers}

    @property
    def attention_parameters(self) -> int:
        """Of one layer: Q, K, V, O with biases, QK norms, and the two RMSNorms of the layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = self.hidden * (2 * q + 2 * kv)
        biases = (q + 2 * kv if self.qkv_bias else 0) + (self.hidden if self.output_bias else 0)
        return projections + biases + (2 * self.head_dim if self.qk_norm else 0) + 2 * self.hidden

    def expert_parameters(self, ffn: FeedForward) -> int:
        """Gate, up and down of one expert."""
        return 3 * self.hidden * ffn.width

    def router_parameters(self, ffn: FeedForward) -> int:
        return self.hidden * ffn.experts if ffn.is_moe else 0

    def layer_parameters(self, ffn: FeedForward) -> int:
        """Of a layer with this FFN."""
        return self.attention_parameters + ffn.experts * self.expert_parameters(ffn) + self.router_parameters(ffn)

    @property
    def embedding_parameters(self) -> int:
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        outer = self.embedding_parameters * (1 if self.tied else 2) + self.hidden  # final norm
        return outer + sum(n * self.layer_parameters(ffn) for ffn, n in self.ffn_kinds.items())

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through: top-k experts, and the head but not the embedding's other rows."""
        total = self.embedding_parameters + self.hidden
        for ffn, layers in self.ffn_kinds.items():
            idle = (ffn.experts - ffn.top_k) * self.expert_parameters(ffn)
            total += layers * (self.layer_parameters(ffn) - idle)
        return total

    @property
    def weight_bytes(self) -> int:
        return self.parameters * self.element_bytes

    @property
    def kv_bytes_per_token_layer(self) -> int:
        """K and V of one position in one layer."""
        return 2 * self.kv_heads * self.head_dim * self.element_bytes


def read_config(path: str | Path) -> Model:
    """Read a `config.json`, or the one in a checkpoint directory. Raises InputError with the file and the key."""
    path = Path(path)
    file = path / "config.json" if path.is_dir() else path
    config = read_json(file, hint="give a Hugging Face config.json")
    if not isinstance(config, dict):
        raise InputError("is not a JSON object", where=str(file), hint="give a Hugging Face config.json")
    name = file.stem if file.name != "config.json" else file.parent.resolve().name
    return from_config(config, name=name, where=str(file))


def from_config(config: Mapping[str, Any], *, name: str, where: str, dtype: str | None = None) -> Model:
    """Make a Model of a Hugging Face config. `dtype` overrides the one stated."""
    family = config.get("model_type")
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InputError(
            f"model_type {family!r} is not supported", where=where, hint=f"supported: {', '.join(_FAMILIES)}"
        )
    if config.get("quantization_config"):
        hint = "give the unquantised checkpoint's config"
        raise InputError("the weights are quantised, which is not supported", where=where, hint=hint)
    traits = _FAMILIES[family]
    get = _Reader(config, where)
    heads = get.count("num_attention_heads")
    kv_heads = get.count("num_key_value_heads", default=heads)
    hidden = get.count("hidden_size")
    if heads % kv_heads:
        raise InputError(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}", where=where
        )
    if config.get("head_dim") is None and hidden % heads:
        raise InputError(f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}", where=where)
    layers = get.count("num_hidden_layers", most=_MOST)
    moe = traits.get("moe", False)
    ffn = _moe(get) if moe else FeedForward(get.count("intermediate_size"))
    dense_layers = _dense_layers(get, layers) if moe else ()
    bias = bool(config.get("attention_bias", False))
    return Model(
        name=name,
        family=family,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=get.count("head_dim", default=hidden // heads),
        vocab=get.count("vocab_size"),
        max_positions=get.count("max_position_embeddings", default=2048),
        tied=bool(config.get("tie_word_embeddings", False)),
        dtype=_dtype(dtype or config.get("torch_dtype") or config.get("dtype") or "bfloat16", where),
        ffn=ffn,
        dense_ffn=FeedForward(get.count("intermediate_size")) if dense_layers else None,
        dense_layers=dense_layers,
        sliding_window=_window(config, get),
        qkv_bias=traits.get("qkv_bias", False) or bias,
        output_bias=bias and not traits.get("qkv_bias", False),
        qk_norm=traits.get("qk_norm", False),
    )


def to_config(model: Model) -> dict[str, Any]:
    """The facts of `model` under their Hugging Face keys: `from_config` of it gives an equal Model."""
    moe = _FAMILIES[model.family].get("moe", False)
    config: dict[str, Any] = {
        "model_type": model.family,
        "hidden_size": model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": model.tied,
        "torch_dtype": model.dtype,
        "intermediate_size": (model.dense_ffn or model.ffn).width,
        "sliding_window": model.sliding_window,
        "attention_bias": model.output_bias,
    }
    if model.sliding_window is not None:
        config["use_sliding_window"] = True
    if moe:
        config |= {"num_local_experts": model.ffn.experts, "num_experts_per_tok": model.ffn.top_k}
        config |= {"moe_intermediate_size": model.ffn.width, "mlp_only_layers": list(model.dense_layers)}
    return config


class _Reader:
    """Reads positive integers of a config and names the key where there is none."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def count(self, *keys: str, default: int | None = None, most: int = _LARGEST) -> int:
        key = next((k for k in keys if self.config.get(k) is not None), keys[0])
        value = self.config.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            problem = f"has no {key}" if value is None else f"{key} is {value!r}"
            raise InputError(problem, where=self.where, hint="it must be a whole number above zero")
        if value > most:
            raise InputError(f"{key} is {value}", where=self.where, hint=f"it must be at most {most}")
        return value


def _moe(get: _Reader) -> FeedForward:
    experts, top_k = get.count("num_local_experts", "num_experts", most=_MOST), get.count("num_experts_per_tok")
    if top_k > experts:
        raise InputError(f"num_experts_per_tok {top_k} is more than the {experts} experts", where=get.where)
    return FeedForward(get.count("moe_intermediate_size", "intermediate_size"), experts, top_k)


def _dense_layers(get: _Reader, layers: int) -> tuple[int, ...]:
    """Layers of an MoE model with a plain FFN (Qwen3-MoE: `mlp_only_layers`, `decoder_sparse_step`)."""
    listed, step = get.config.get("mlp_only_layers") or [], get.count("decoder_sparse_step", default=1)
    if not isinstance(listed, list) or not all(type(layer) is int for layer in listed):
        raise InputError(f"mlp_only_layers is {listed!r}", where=get.where, hint="it must be a list of layers")
    only = set(listed)
    return tuple(layer for layer in range(layers) if layer in only or (layer + 1) % step)


def _window(config: Mapping[str, Any], get: _Reader) -> int | None:
    # Qwen configs state a window and then switch it off; the other families have no switch.
    if config.get("sliding_window") is None or not config.get(
        "use_sliding_window", not config["model_type"].startswith("qwen")
    ):
        return None
    return get.count("sliding_window")


def _dtype(name: Any, where: str) -> str:
    dtype = str(name).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise InputError(f"dtype {dtype!r} is not supported", where=where, hint=f"use one of: {', '.join(DTYPE_BYTES)}")
    return dtype
