"""What is tried before a run is all that the run will ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor.checkpoint.checkpoint import open_checkpoint
from executor.decoder import products
from executor.decoder.trials import try_products
from tests.executor import checkpoints, runs


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "llama"])
def test_a_run_tries_nothing_more(family: str, tmp_path: Path) -> None:
    """Sizes are such that the draft's matrices can be laid out."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": 128}
    target = open_checkpoint(checkpoints.make(family, tmp_path / "target", 0, "bfloat16", **sizes))
    draft = open_checkpoint(checkpoints.make("llama", tmp_path / "draft", 1, "bfloat16", **sizes))
    products._agreeing.cache_clear()
    try_products([target.architecture], [draft.architecture])
    tried = products._agreeing.cache_info().misses
    made = runs.plan(target.architecture.model, draft=draft.architecture.model, gamma=2, batch=3)
    runs.execute(made, target, runs.prompts(6, 3, 96, longest=70, new=8), draft=draft)
    assert products._agreeing.cache_info().misses == tried
