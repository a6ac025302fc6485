"""What transformers itself generates with everything resident and no limit, and how sure it was of each token.

    python -m benchmarks.peers.reference --target DIR --prompts FILE --requests N --new-tokens N --threads N

Prints one JSON line: `tokens` and `margin` [requests][new tokens], the latter the best logit's distance from the
second, and `noise`: by how much a margin moves at most when transformers itself computes the experts one by one and a
quarter of the requests at a time, over all tokens that have the same tokens before them.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.arguments import peer_parser
from benchmarks.peers.prompts import read_ids
from benchmarks.peers.transformers_model import greedy, resident


def main() -> None:
    parser = peer_parser("reference", offloaded=False)
    parser.add_argument("--requests", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    prompts = read_ids(options.prompts, options.requests)
    model = resident(options.target)
    tokens, margins = _generate(model, prompts, options.new_tokens)
    model.set_experts_implementation("eager")
    quarter = -(-len(prompts) // 4)
    again = [_generate(model, prompts[i : i + quarter], options.new_tokens) for i in range(0, len(prompts), quarter)]
    others, moved = [row for rows, _ in again for row in rows], torch.cat([rows for _, rows in again])
    noise = max(
        abs(float(margins[i, k] - moved[i, k]))
        for i, (one, other) in enumerate(zip(tokens, others, strict=True))
        for k in range(len(one))
        if one[: k + 1] == other[: k + 1]
    )
    print(json.dumps({"tokens": tokens, "margin": margins.tolist(), "noise": noise}))


def _generate(model: Any, prompts: list[list[int]], new_tokens: int) -> tuple[list[list[int]], Tensor]:
    """Tokens, and the margins of each [requests, new tokens]."""
    best: list[Tensor] = []  # [requests, 2] of each step
    tokens = greedy(model, prompts, new_tokens, lambda logits: best.append(logits.float().topk(2).values))
    pairs = torch.stack(best, dim=1)
    return tokens, pairs[..., 0] - pairs[..., 1]


if __name__ == "__main__":
    main()
