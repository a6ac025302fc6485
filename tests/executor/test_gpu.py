"""The same runs on a CUDA device: run with `-m gpu` where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from executor.checkpoint.checkpoint import open_checkpoint
from executor.decoder.numerics import EXACT
from executor.decoder.resident import generate_greedy, load_resident
from executor.devices import Devices, lanes_for
from tests.executor import checkpoints, runs
from tests.executor.test_lossless import STRATEGIES, VOCAB, WORLDS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("world", ["pinned", "visiting-kv", "disk-to-gpu"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_computed_on_the_gpu_alone_gives_the_plain_decoders_tokens(
    tmp_path: Path, strategy: str, world: str
) -> None:
    cuda = torch.device("cuda", 0)
    target = open_checkpoint(checkpoints.make("mixtral", tmp_path / "target", seed=1))
    draft = open_checkpoint(checkpoints.make("mistral", tmp_path / "draft", seed=2))
    requests = runs.prompts(7, 6, VOCAB, longest=80, new=16)
    plan = runs.plan(
        target.architecture.model,
        draft=draft.architecture.model,
        world=WORLDS[world],
        strategy=strategy,  # type: ignore[arg-type]
        gamma=3,
        batch=2,
    )
    devices = Devices("gpu", cuda)
    got, _ = runs.execute(plan, target, requests, draft=draft, devices=devices, lanes=lanes_for(devices))
    plain = load_resident(target, EXACT, cuda)
    assert got == [generate_greedy(plain, list(r.prompt), r.max_new_tokens) for r in requests]


@pytest.mark.parametrize("world", ["cpu-core", "cpu-attention", "cpu-parts-from-disk"])
def test_sharing_the_work_with_the_cpu_gives_the_same_tokens_in_fp32(tmp_path: Path, world: str) -> None:
    """Two processors round differently; on these models no two logits are that close."""
    target = open_checkpoint(checkpoints.make("mixtral", tmp_path / "target", seed=1))
    requests = runs.prompts(7, 6, VOCAB, longest=80, new=16)
    plan = runs.plan(target.architecture.model, world=WORLDS[world], gamma=3, batch=3)
    devices = Devices("gpu", torch.device("cuda", 0))
    got, _ = runs.execute(plan, target, requests, devices=devices, lanes=lanes_for(devices))
    plain = load_resident(target, EXACT)
    assert got == [generate_greedy(plain, list(r.prompt), r.max_new_tokens) for r in requests]
