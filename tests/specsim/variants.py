"""Every way to place a small model with dense and sparse layers, and to run it: for what must hold of every graph."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from specsim.case import Case
from specsim.decision import Decision
from specsim.model import FeedForward
from specsim.schedule.lower import STRATEGIES
from tests.specsim import stories

PLACEMENTS: dict[str, tuple[bool, dict[str, Any]]] = {
    "all in vram": (False, {}),
    "pinned": (False, {"weights": "pinned"}),
    "pageable, kv in ram": (False, {"weights": "pageable", "kv": "ram"}),
    "disk": (False, {"weights": "disk"}),
    "cpu core": (False, {"attention": "cpu", "ffn": "pinned"}),
    "cpu attention and parts": (False, {"attention": "cpu+projections", "weights": "pinned", "cpu_parts": 2}),
    "cpu parts from disk": (False, {"weights": "disk", "cpu_parts": 4}),
    "no gpu": (True, {"attention": "bare", "weights": "ram"}),
    "no gpu, disk": (True, {"attention": "bare", "weights": "ram", "ffn": "disk"}),
}
DRAFTS = {
    False: [stories.on_gpu("vram", 2), stories.on_gpu("ram"), stories.on_gpu("none", waits=True), stories.on_cpu()],
    True: [stories.on_cpu("ram", 2), stories.on_cpu("none", waits=True)],
}


ALL = [
    pytest.param(strategy, *PLACEMENTS[name], id=f"{strategy}, {name}")
    for strategy, name in product(STRATEGIES, PLACEMENTS)
]
TARGET = stories.moe(layers=2, family="qwen3_moe", dense_ffn=FeedForward(64), dense_layers=(0,))


def variants(strategy: str, bare: bool, placed: dict[str, Any]) -> list[tuple[Case, Decision]]:
    """Plain and with every draft, with and without micro-batches, all experts and routed ones."""
    layers = stories.layers(TARGET, **placed)
    case = stories.case(stories.machine(bare=bare), TARGET, draft=stories.model(vocab=TARGET.vocab))
    return [
        (
            case,
            stories.decision(
                strategy,
                layers,
                batch=3,
                gamma=3 if drafting else 0,
                draft=drafting,
                verify_micro_batches=micro,
                prefill_micro_batches=micro,
                prefill_batch=2,
                expert_fetch=fetch,
            ),
        )
        for drafting, micro, fetch in product([None, *DRAFTS[bare]], (1, 3), ("all", "routed"))
    ]
