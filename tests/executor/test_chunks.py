"""FFNs and logits in small chunks: as many rows at once as planned, and no token changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace as change

from executor.checkpoint.checkpoint import open_checkpoint
from executor.decoder import blocks, feedforward
from executor.decoder.products import height
from executor.speculation.sampling import Sampling
from specsim.answer import Plan
from specsim.decision import LEAST_CHUNK
from tests.executor import checkpoints, runs


def chunked(made: Plan, chunk_tokens: int) -> Plan:
    policy = change(made.decision.policy, chunk_tokens=chunk_tokens)
    return Plan(made.case, change(made.decision, policy=policy), made.predicted, made.search, made.provenance)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.5, seed=11)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", ["mixtral", "llama"])
def test_the_size_of_chunks_changes_no_token(
    family: str, sampling: Sampling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = open_checkpoint(checkpoints.make(family, tmp_path / "target", seed=1))
    draft = open_checkpoint(checkpoints.make("mistral", tmp_path / "draft", seed=2))
    made = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=3, batch=12, requests=12)
    requests = runs.prompts(4, 12, 96, shortest=20, longest=60, new=8)
    products: list[int] = []
    heads: list[int] = []
    gated, logits = feedforward._gated, blocks.logits

    def watched(numerics: Any, expert: Any, x: torch.Tensor, inner: Any) -> Any:
        products.append(len(x))
        return gated(numerics, expert, x, inner)

    def decided(arch: Any, numerics: Any, head: Any, hidden: torch.Tensor) -> torch.Tensor:
        heads.append(len(hidden))
        return logits(arch, numerics, head, hidden)

    monkeypatch.setattr(feedforward, "_gated", watched)
    monkeypatch.setattr(blocks, "logits", decided)
    whole, _ = runs.execute(made, target, requests, draft=draft, sampling=sampling)
    assert max(products) > 100
    assert max(heads) == 12 * 4
    for chunk in (LEAST_CHUNK, 50, 100):
        products.clear()
        heads.clear()
        assert runs.execute(chunked(made, chunk), target, requests, draft=draft, sampling=sampling)[0] == whole
        assert max(products) <= height(chunk)  # of the mixture's four experts each token asks for two
        assert max(heads) <= min(chunk, 12 * 4)
