"""What a checkpoint's config.json says beyond sizes: norms, rotary embedding, windows, routing, and its end tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from executor.architecture import Architecture, Rope
from specsim.bounded import read_json
from specsim.errors import InputError
from specsim.model import Model, read_config

#: what a config that does not say means, as in transformers: Mixtral's differ from the other families' 1e-6 and 10000
_RMS_EPS: Final = {"mixtral": 1e-5}
_ROPE_THETA: Final = {"mixtral": 1e6}
_LAYER_TYPES: Final = ("full_attention", "sliding_attention")


def read_architecture(directory: str | Path) -> Architecture:
    """Read `config.json` and, for the end tokens, `generation_config.json`. Raises InputError with the key."""
    file = Path(directory) / "config.json"
    model = read_config(file)  # refuses what is not a JSON object
    config = read_json(file, hint="give a Hugging Face config.json")
    generation = Path(directory) / "generation_config.json"
    stated = read_json(generation, hint="get the file again, or remove it") if generation.exists() else None
    return to_architecture(model, config, stated, Path(directory))


def to_architecture(model: Model, config: Mapping[str, Any], generation: Any, directory: Path) -> Architecture:
    """The architecture of `model`, which was read from `config`, and the end tokens of `generation`, where it has
    some. Raises InputError that names the key, and the file in `directory`."""
    where = str(directory / "config.json")
    _refuse_other_layers(config, model, where)
    return Architecture(
        model=model,
        rms_eps=_number(config, "rms_norm_eps", where, default=_RMS_EPS.get(model.family, 1e-6)),
        rope=_rope(config, model, where),
        windows=_windows(config, model, where),
        renormalise=model.family == "mixtral" or bool(config.get("norm_topk_prob", False)),
        eos=_end_tokens(config, generation, directory),
    )


def _refuse_other_layers(config: Mapping[str, Any], model: Model, where: str) -> None:
    activation = config.get("hidden_act") or "silu"
    if activation != "silu":
        raise InputError(f"hidden_act {activation!r} is not supported", where=where, hint="supported: silu")
    if config.get("mlp_bias"):
        raise InputError("mlp_bias is true, which is not supported", where=where)
    if model.head_dim % 2:
        raise InputError(f"head_dim {model.head_dim} is odd, which rotary embedding cannot be", where=where)


def _number(config: Mapping[str, Any], key: str, where: str, *, default: float | None = None) -> float:
    value = default if config.get(key) is None else config[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        problem = f"has no {key}" if value is None else f"{key} is {value!r}"
        raise InputError(problem, where=where, hint="it must be a number above zero")
    return float(value)


def _rope(config: Mapping[str, Any], model: Model, where: str) -> Rope:
    """transformers 5 writes all of it into `rope_parameters`; before, `rope_theta` stood beside `rope_scaling`."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise InputError(f"rope_parameters is {scaling!r}", where=where, hint="it must be a JSON object")
    if any(isinstance(value, dict) for value in scaling.values()):
        raise InputError("rope_parameters differ by kind of layer, which is not supported", where=where)
    for holder in (scaling, config):
        if holder.get("partial_rotary_factor") not in (None, 1):
            factor = holder["partial_rotary_factor"]
            raise InputError(f"partial_rotary_factor {factor!r} is not supported", where=where)
    theta_of = scaling if scaling.get("rope_theta") is not None else config
    theta = _number(theta_of, "rope_theta", where, default=_ROPE_THETA.get(model.family, 10_000.0))
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind == "default":
        return Rope(theta)
    if kind not in ("linear", "llama3"):
        hint = "supported: default, linear, llama3"
        raise InputError(f"rope_type {kind!r} is not supported", where=where, hint=hint)
    factor = _number(scaling, "factor", where)
    if kind == "linear":
        return Rope(theta, factor)
    low, high = _number(scaling, "low_freq_factor", where), _number(scaling, "high_freq_factor", where)
    if low >= high:
        raise InputError(f"low_freq_factor {low:g} is not below high_freq_factor {high:g}", where=where)
    original = _number(scaling, "original_max_position_embeddings", where, default=model.max_positions)
    return Rope(theta, factor, low, high, int(original))


def _windows(config: Mapping[str, Any], model: Model, where: str) -> tuple[int | None, ...]:
    """The window of each layer. Dense Qwens name the layers that have one, or else the first of them; in the other
    families all layers are alike. Llama has none."""
    window = model.sliding_window
    if window is None or model.family == "llama":
        return (None,) * model.layers
    if model.family not in ("qwen2", "qwen3"):
        return (window,) * model.layers
    kinds = config.get("layer_types")
    if kinds is None:
        first = config.get("max_window_layers", 28)
        if not isinstance(first, int):
            raise InputError(f"max_window_layers is {first!r}", where=where, hint="it must be a whole number")
        return tuple(window if layer >= first else None for layer in range(model.layers))
    if not isinstance(kinds, list) or len(kinds) != model.layers or any(kind not in _LAYER_TYPES for kind in kinds):
        hint = f"give {' or '.join(_LAYER_TYPES)} for each of the {model.layers} layers"
        raise InputError(f"layer_types is {kinds!r}", where=where, hint=hint)
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _end_tokens(config: Mapping[str, Any], generation: Any, directory: Path) -> tuple[int, ...]:
    """`eos_token_id`, one or a list; that of generation_config.json, where it has one, wins."""
    file, found = directory / "config.json", config.get("eos_token_id")
    if isinstance(generation, dict) and generation.get("eos_token_id") is not None:
        file, found = directory / "generation_config.json", generation["eos_token_id"]
    tokens = [] if found is None else found if isinstance(found, list) else [found]
    if not all(type(token) is int for token in tokens):
        raise InputError(f"eos_token_id is {found!r}", where=str(file), hint="it must be a token, or a list of them")
    return tuple(tokens)
