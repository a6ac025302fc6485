"""A draft of random weights, and a target grown from it that agrees with it as far as a dial, the noise, lets it.

The draft is a dense model of a few layers. Each of its layers has a place in the target, where every expert is the
draft's FFN; the places between are filled with layers of the target's own. With noise n, 0 <= n <= 1,

    a matrix grown from the draft's   = sqrt(1 - n^2) x the draft's + n x noise of its own, of the same size;
    an inserted layer's contribution  = n x that of any other layer (its output projections are scaled).

At 0 the target computes the draft's function, up to rounding; at 1 they share the embedding and the head alone.

A random transformer tends to repeat itself. These do not: each layer adds as much to the residual stream as the
embedding does, and attention is sharp enough to single tokens out, so that the next token is a pseudo-random function
of the whole context. As in a language model, a few tokens hold most of the probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from executor.pairs.recipe import Recipe
from specsim.errors import InputError
from specsim.model import FeedForward, Model, to_config

#: std of q.k / sqrt(d): where scores of std s go through a softmax, about e^(s^2) positions share its mass
SCORE_STD = 2.0
#: rms of silu(a) b for normal a, b (numerical integration), which the down projection makes up for
GATED_RMS = 0.596
#: logits of std s over V tokens leave 1 - sqrt(2 ln V) / s of the squared mass to few tokens
#: (the frozen phase of the random energy model, Derrida 1981); this is s / sqrt(2 ln V)
LOGIT_STD = 1.5
RMS_EPS, ROPE_THETA = 1e-5, 10_000.0


@dataclass(frozen=True, slots=True)
class Pair:
    target: Model
    draft: Model

    @property
    def ratio(self) -> float:
        """How many times smaller the draft is."""
        return self.target.weight_bytes / self.draft.weight_bytes

    def origin(self, layer: int) -> int | None:
        """The draft's layer whose place this layer of the target has; None for an inserted layer."""
        draft, target = self.draft.layers, self.target.layers
        place = -(-layer * draft // target)  # the first draft layer that is spread to this layer or later
        return place if place < draft and place * target // draft == layer else None


def make_pair(target: Model, draft_layers: int) -> Pair:
    """The pair of `target` and a dense Mistral with its widths. Raises InputError for sizes that make no model."""
    if not 1 <= draft_layers <= target.layers:
        what = f"the draft has {draft_layers} layers, the target {target.layers}"
        raise InputError(what, where="--draft-layers", hint="a draft has between one and all of the target's layers")
    draft = replace(target, name="draft", family="mistral", layers=draft_layers, ffn=FeedForward(target.ffn.width))
    return Pair(target, draft)


def hf_config(model: Model) -> dict[str, Any]:
    """config.json of a generated checkpoint. It names no end token, so that every request runs to its full length."""
    return to_config(model) | {
        "architectures": ["MixtralForCausalLM" if model.family == "mixtral" else "MistralForCausalLM"],
        "hidden_act": "silu",
        "rms_norm_eps": RMS_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "bos_token_id": None,
        "eos_token_id": None,
    }


def draft_recipes(pair: Pair) -> dict[str, Recipe]:
    return _recipes(pair.draft, list(range(pair.draft.layers)), 0.0)


def target_recipes(pair: Pair, noise: float) -> dict[str, Recipe]:
    return _recipes(pair.target, [pair.origin(layer) for layer in range(pair.target.layers)], noise)


def _recipes(model: Model, origins: list[int | None], noise: float) -> dict[str, Recipe]:
    """Every tensor by its name in the checkpoint, in the order of a pass."""
    h, V = model.hidden, model.vocab
    recipes = {"model.embed_tokens.weight": Recipe((V, h), ((1.0, "embedding"),))}
    for layer, origin in enumerate(origins):
        recipes |= {f"model.layers.{layer}.{name}": r for name, r in _layer(model, layer, origin, noise).items()}
    recipes["model.norm.weight"] = Recipe((h,), constant=1.0)
    logit_std = LOGIT_STD * math.sqrt(2 * math.log(V))
    recipes["lm_head.weight"] = Recipe((V, h), ((logit_std / math.sqrt(h), "head"),))
    return recipes


def _layer(model: Model, layer: int, origin: int | None, noise: float) -> dict[str, Recipe]:
    h, f, d = model.hidden, model.ffn.width, model.head_dim
    q, kv = model.heads * d, model.kv_heads * d

    def matrix(name: str, rows: int, columns: int, std: float, expert: int = 0) -> Recipe:
        own = f"target {layer} {expert} {name}"
        if origin is None:
            return Recipe((rows, columns), ((noise * std if name in ("o", "down") else std, own),))
        kept = math.sqrt(1 - noise * noise)
        return Recipe((rows, columns), _nonzero((kept * std, f"draft {origin} {name}"), (noise * std, own)))

    unit = 1 / math.sqrt(h)  # of a normalised input it makes values of variance 1
    score = math.sqrt(SCORE_STD) * unit
    recipes = {
        "input_layernorm.weight": Recipe((h,), constant=1.0),
        "self_attn.q_proj.weight": matrix("q", q, h, score),
        "self_attn.k_proj.weight": matrix("k", kv, h, score),
        "self_attn.v_proj.weight": matrix("v", kv, h, unit),
        "self_attn.o_proj.weight": matrix("o", h, q, 1.5 / math.sqrt(q)),  # averaging over positions shrinks v
        "post_attention_layernorm.weight": Recipe((h,), constant=1.0),
    }
    names = {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    if model.ffn.is_moe:
        recipes["block_sparse_moe.gate.weight"] = Recipe((model.ffn.experts, h), ((unit, f"target {layer} router"),))
    for expert in range(model.ffn.experts):
        if model.ffn.is_moe:
            names = {
                k: f"block_sparse_moe.experts.{expert}.{w}" for k, w in zip(names, ("w1", "w3", "w2"), strict=True)
            }
        recipes[f"{names['gate']}.weight"] = matrix("gate", f, h, unit, expert)
        recipes[f"{names['up']}.weight"] = matrix("up", f, h, unit, expert)
        recipes[f"{names['down']}.weight"] = matrix("down", h, f, 1 / (GATED_RMS * math.sqrt(f)), expert)
    return recipes


def _nonzero(*terms: tuple[float, str]) -> tuple[tuple[float, str], ...]:
    return tuple(term for term in terms if term[0])
