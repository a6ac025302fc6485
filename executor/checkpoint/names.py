"""Which tensors of a checkpoint a model's weights are: Hugging Face's names, with a mixture's experts apart or fused.

h hidden, d head size, f FFN width, E experts. A mixture's experts are tensors of their own in published checkpoints and
in what transformers 5 saves by default, and one [E, 2f, h] and one [E, h, f] tensor in what it holds in memory, which
`save_pretrained(..., save_original_format=False)` writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from specsim.model import Model

#: the field of executor.weights that a weight fills; of an expert's matrix: gate, up or down, and the expert
Role = str | tuple[str, int]
Shape = tuple[int, ...]

EMBEDDING: Final = "model.embed_tokens.weight"
MATRICES: Final = ("gate", "up", "down")
_MIXTRAL_MATRICES: Final = {"gate": "w1", "up": "w3", "down": "w2"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a weight lies: `shape` elements in row-major order of `tensor`, from element `first`. `whole` is the shape
    that the tensor must have."""

    tensor: str
    whole: Shape
    shape: Shape
    first: int = 0


def attention_sources(model: Model, layer: int, tensors: Collection[str]) -> dict[Role, Source]:
    """A layer's attention, both norms and the router. `tensors` are the names that the checkpoint has."""
    h, d, q, kv = model.hidden, model.head_dim, model.heads * model.head_dim, model.kv_heads * model.head_dim
    found: dict[Role, tuple[str, Shape]] = {
        "norm": ("input_layernorm.weight", (h,)),
        "q": ("self_attn.q_proj.weight", (q, h)),
        "k": ("self_attn.k_proj.weight", (kv, h)),
        "v": ("self_attn.v_proj.weight", (kv, h)),
        "o": ("self_attn.o_proj.weight", (h, q)),
        "post_norm": ("post_attention_layernorm.weight", (h,)),
    }
    if model.qkv_bias:
        found["q_bias"] = "self_attn.q_proj.bias", (q,)
        found["k_bias"] = "self_attn.k_proj.bias", (kv,)
        found["v_bias"] = "self_attn.v_proj.bias", (kv,)
    if model.output_bias:
        found["o_bias"] = "self_attn.o_proj.bias", (h,)
    if model.qk_norm:
        found["q_norm"] = "self_attn.q_norm.weight", (d,)
        found["k_norm"] = "self_attn.k_norm.weight", (d,)
    prefix = f"model.layers.{layer}"
    sources: dict[Role, Source] = {role: _whole(f"{prefix}.{name}", shape) for role, (name, shape) in found.items()}
    ffn = model.layer_ffn(layer)
    if ffn.is_moe:
        sources["router"] = _whole(f"{_mixture(model, layer, tensors)}.gate.weight", (ffn.experts, h))
    return sources


def expert_sources(model: Model, layer: int, expert: int, tensors: Collection[str]) -> dict[Role, Source]:
    """Gate, up and down of one expert of a layer; a dense FFN is expert 0."""
    h, ffn = model.hidden, model.layer_ffn(layer)
    f = ffn.width
    shapes = {"gate": (f, h), "up": (f, h), "down": (h, f)}
    if not ffn.is_moe:
        prefix = f"model.layers.{layer}.mlp"
        return {(m, expert): _whole(f"{prefix}.{m}_proj.weight", shapes[m]) for m in MATRICES}
    prefix = f"{_mixture(model, layer, tensors)}.experts"
    if (gate_up := f"{prefix}.gate_up_proj") in tensors:
        both, down = (ffn.experts, 2 * f, h), (ffn.experts, h, f)
        return {
            ("gate", expert): Source(gate_up, both, shapes["gate"], first=expert * 2 * f * h),
            ("up", expert): Source(gate_up, both, shapes["up"], first=(expert * 2 + 1) * f * h),
            ("down", expert): Source(f"{prefix}.down_proj", down, shapes["down"], first=expert * h * f),
        }
    names = _MIXTRAL_MATRICES if model.family == "mixtral" else {m: f"{m}_proj" for m in MATRICES}
    return {(m, expert): _whole(f"{prefix}.{expert}.{names[m]}.weight", shapes[m]) for m in MATRICES}


def head_sources(model: Model) -> dict[Role, Source]:
    """The final norm and the output projection: where tied, the embedding, and a copy stored beside it is ignored."""
    output = EMBEDDING if model.tied else "lm_head.weight"
    return {
        "norm": _whole("model.norm.weight", (model.hidden,)),
        "output": _whole(output, (model.vocab, model.hidden)),
    }


def embedding_sources(model: Model) -> dict[Role, Source]:
    return {"embedding": _whole(EMBEDDING, (model.vocab, model.hidden))}


def all_sources(model: Model, tensors: Collection[str]) -> Iterator[Source]:
    """Every weight of the model."""
    yield from embedding_sources(model).values()
    for layer in range(model.layers):
        yield from attention_sources(model, layer, tensors).values()
        for expert in range(model.layer_ffn(layer).experts):
            yield from expert_sources(model, layer, expert, tensors).values()
    yield from head_sources(model).values()


def _whole(tensor: str, shape: Shape) -> Source:
    return Source(tensor, shape, shape)


def _mixture(model: Model, layer: int, tensors: Collection[str]) -> str:
    """The name of a layer's mixture: Mixtral's own is `block_sparse_moe`, transformers 5 holds it as `mlp`."""
    prefix = f"model.layers.{layer}"
    if model.family == "mixtral" and f"{prefix}.mlp.gate.weight" not in tensors:
        return f"{prefix}.block_sparse_moe"
    return f"{prefix}.mlp"
