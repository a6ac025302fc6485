"""The target's verdict on a proposal: how much of it stands, and the target's own token after that.

What is emitted is what the target alone would have: the same tokens when greedy, the same distribution when sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.decoder.numerics import argmax
from executor.speculation.draws import Purpose, uniform
from executor.speculation.sampling import Sampling, distribution, draw
from specsim.errors import InputError


class NonFiniteError(InputError):
    """Logits with a NaN or an infinity: the weights are broken, or overflow in this dtype."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was proposed for one sequence: n tokens, and the distribution [n, V] that each was drawn from.

    `probs` None is a point mass: a token that was not drawn (of a greedy draft, or copied from the context).
    `probs` lies where the target's logits lie, and no proposed token has probability 0 in it.
    """

    tokens: tuple[int, ...]
    probs: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`tokens` to emit: the `accepted` first of the proposal, and one of the target's own."""

    tokens: tuple[int, ...]
    accepted: int


def require_finite(logits: Tensor, requests: Sequence[int]) -> None:
    """Raise NonFiniteError for the first row of `logits` [n, V] with a NaN or an infinity; `requests[row]` is named."""
    finite = logits.amax(-1).isfinite() & logits.amin(-1).isfinite()  # both pass a NaN on
    if not bool(finite.all()):
        row = finite.tolist().index(False)
        hint = "check the checkpoint's weights, or run in bfloat16 or float32"
        raise NonFiniteError(f"NaN or infinity in the logits of request {requests[row]}", hint=hint)


def verify(logits: Tensor, proposal: Proposal, sampling: Sampling, request: int, position: int) -> Verdict:
    """Judge the n proposed tokens by the target's logits [n + 1, V], float32: row i is for the token at `position` + i.

    Sampling is algorithm 1 of Leviathan et al., arXiv 2211.17192. `request` and `position` key the draws.
    Raises NonFiniteError.
    """
    require_finite(logits, [request] * len(logits))
    if sampling.greedy:
        return verify_greedy(argmax(logits).tolist(), proposal.tokens)
    target = distribution(logits, sampling)
    accepted = 0
    for p, q in zip(*_chances(target, proposal), strict=True):
        # Accepted with probability min(1, p / q), written so that nothing is divided by a small q.
        if uniform(sampling.seed, request, position + accepted, Purpose.ACCEPT) * q >= p:
            break
        accepted += 1
    own = target[accepted] if accepted == len(proposal.tokens) else _residual(target[accepted], proposal, accepted)
    token = draw(own, uniform(sampling.seed, request, position + accepted, Purpose.TARGET))
    return Verdict((*proposal.tokens[:accepted], token), accepted)


def verify_greedy(choices: Sequence[int], proposed: Sequence[int]) -> Verdict:
    """The verdict where the target's most likely tokens are known: `choices` has one more than were `proposed`.

    An argmax over all rows of a pass serves its whole batch; `require_finite` is then the caller's to call.
    """
    accepted = 0
    while accepted < len(proposed) and choices[accepted] == proposed[accepted]:
        accepted += 1
    return Verdict(tuple(choices[: accepted + 1]), accepted)


def _chances(target: Tensor, proposal: Proposal) -> tuple[list[float], list[float]]:
    """The probabilities p and q of each proposed token, by the target and by what proposed it."""
    tokens = torch.tensor(proposal.tokens, dtype=torch.long, device=target.device)[:, None]
    p = target[: len(tokens)].gather(1, tokens)[:, 0].tolist()
    q = [1.0] * len(tokens) if proposal.probs is None else proposal.probs.gather(1, tokens)[:, 0].tolist()
    return p, q


def _residual(p: Tensor, proposal: Proposal, row: int) -> Tensor:
    """What of the target's distribution `p` [V] the proposal left uncovered: (p - q)+ in float64, up to its sum."""
    rest = p.double()
    if proposal.probs is None:
        rest[proposal.tokens[row]] = 0.0
    else:
        rest = (rest - proposal.probs[row].double()).clamp_min(0.0)
    # q covers p up to rounding: then a rejection is rounding too, and p is as good.
    return rest if bool(rest.any()) else p
