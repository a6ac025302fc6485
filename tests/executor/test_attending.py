"""What the plan counts for attention on the CPU is what it takes there, by the live tensors of a layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.live import LiveBytes
from executor.decoder.attention import attend
from executor.decoder.batch import Batch
from executor.decoder.cache import KvArena, Segment
from executor.decoder.numerics import EXACT
from executor.memory import Ledger
from specsim.attending import attention_bytes
from tests.executor.decoder_stories import load


@pytest.mark.parametrize(
    ("sequences", "rows", "cached"),
    [(12, 1, 100), (12, 4, 200), (6, 64, 0), (3, 160, 0), (1, 300, 0), (1, 5, 3000), (64, 4, 400)],
)
def test_attention_takes_what_the_plan_counts(sequences: int, rows: int, cached: int) -> None:
    arch = load("llama").arch
    model = replace(arch.model, heads=6, kv_heads=2, head_dim=32, hidden=192, layers=1, dtype="bfloat16")
    arch = replace(arch, model=model, windows=(None,))
    arena = KvArena.empty(arch, sequences * (cached + rows))
    caches = [arena.take(cached + rows) for _ in range(sequences)]
    batch = Batch(arch, EXACT, [Segment(i * rows, rows, cached) for i in range(sequences)], caches, torch.device("cpu"))
    batch.groups(None)
    live = LiveBytes()
    live.ledger = Ledger({"ram": 1e12})
    with live.here():
        q, k, v = (torch.zeros(sequences * rows, heads, 32, dtype=torch.bfloat16) for heads in (6, 2, 2))
        attend(0, q, k, v, batch, arena.layers[0])
    _, measured = live.peaks[""]
    assert attention_bytes(model, sequences * rows, sequences, cached + rows) == pytest.approx(measured, rel=0.05)
