"""From logits to a token: the distribution that a request asks for, and how a token is drawn from it.

Target and draft go through the same functions: lossless verification compares exactly the distributions drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from specsim.errors import InputError

#: colder is greedy in all but name, and in the end 0 / 0 in float32
_COLDEST = 1e-6
#: candidates that top-p ranks first; only a flatter distribution has its whole vocabulary sorted
_NUCLEUS = 1024


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy; None leaves a filter out. Raises InputError with the value."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or (math.isfinite(self.temperature) and self.temperature >= _COLDEST)):
            raise InputError(
                f"temperature is {self.temperature}", hint=f"use 0 for greedy decoding, or {_COLDEST:g} and more"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}", hint="keep at least 1 token, or leave it out")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}", hint="it must be above 0 and at most 1")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"seed is {self.seed}", hint="it must be between 0 and 2^64 - 1")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def distribution(logits: Tensor, sampling: Sampling) -> Tensor:
    """Finite logits [n, V] -> probabilities [n, V] in float32: temperature, then top-k, then top-p, then softmax.

    The filters keep what transformers' TopKLogitsWarper and TopPLogitsWarper keep: top-k all tokens at least as likely
    as the k-th, top-p the fewest most likely tokens whose probability reaches `top_p`. A token tied with the last one
    kept is kept too, in both, so that no order of sorting decides. `sampling` must not be greedy.
    """
    # Shifted first: the greatest logit is 0, so that a low temperature sends only the others to -inf.
    scores = (logits.float() - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scores.shape[-1]:
        least = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    probs = scores.softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        probs = probs.masked_fill(probs < _least_of_nucleus(probs, sampling.top_p), 0.0)
        probs /= probs.sum(dim=-1, keepdim=True)
    return probs


def _least_of_nucleus(probs: Tensor, top_p: float) -> Tensor:
    """The probability [n, 1] of the last token that top-p keeps: those before it sum to less than `top_p`."""
    ranked = probs.topk(min(_NUCLEUS, probs.shape[-1]), dim=-1).values.double()
    if bool((ranked.sum(dim=-1) < top_p).any()):
        ranked = probs.sort(dim=-1, descending=True).values.double()
    before = ranked.cumsum(dim=-1) - ranked
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return ranked.gather(-1, last).to(probs.dtype)


def draw(probs: Tensor, u: float) -> int:
    """The token at `u` in [0, 1) of the cumulative distribution of `probs` [V], whose sum is above 0 and need not be 1.

    A token of probability 0 is never drawn: the cumulative sum does not rise there.
    """
    cumulative = probs.double().cumsum(dim=-1)
    return int(torch.searchsorted(cumulative, cumulative[-1:] * u, right=True))
