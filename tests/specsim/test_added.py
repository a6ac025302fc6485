"""What speculation adds to memory: every byte of it an item, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from specsim import memory
from specsim.added import FOR_CANDIDATES, OF_WEIGHTS, added_items, generation_bytes, without_speculation
from tests.specsim import stories
from tests.specsim.variants import PLACEMENTS, variants

DRAFT = stories.model(family="mistral")


def added(case: Any, decision: Any, phase: str, where: str) -> memory.Items:
    return added_items(case, decision)[phase][where]


def test_candidates_take_cache_slots_positions_and_logits() -> None:
    case = stories.case(work=stories.workload(requests=8), draft=DRAFT)
    draft = stories.on_gpu("vram", 4)
    decision = stories.decision("serial", stories.layers(case.target), batch=4, gamma=2, draft=draft)
    one, three = (memory.workspaces(case.target, 4 * positions, 1, 4 * positions) for positions in (1, 3))
    found = added(case, decision, "decode", "vram")
    assert list(found) == [
        "verify activations",
        "candidate logits",
        "allocator rounding",
        "candidate kv",
        "draft weights",
        "draft workspace",
        "draft kv",
    ]
    activations = ("hidden states", "attention workspace", "ffn workspace")
    assert found["verify activations"] == sum(three[item] - one[item] for item in activations)
    assert found["candidate logits"] == three["logits"] - one["logits"]
    assert found["candidate kv"] == 2 * 4 * 2 * 12  # layers, sequences, candidates, bytes of K and V
    assert "verify activations" not in added(case, decision, "prefill", "vram")  # whose sweeps know no candidates
    assert added(case, decision, "prefill", "vram")["candidate kv"] == 2 * 4 * 2 * 12
    assert added(case, decision, "decode", "ram") == {}


def test_staging_buffers_hold_candidates_too() -> None:
    case = stories.case(work=stories.workload(requests=8), draft=DRAFT)
    visiting = stories.decision("serial", stories.layers(case.target, kv="ram"), batch=4, gamma=2)
    assert added(case, visiting, "decode", "vram")["candidate kv staging"] == 2 * 12 * 4 * 2
    assert added(case, visiting, "decode", "ram") == {"candidate kv": 2 * 12 * 4 * 2}


@pytest.mark.parametrize("name", PLACEMENTS)
def test_it_is_exactly_what_the_same_plan_does_without(name: str) -> None:
    bare, placed = PLACEMENTS[name]
    for case, decision in variants("merged", bare, placed):
        most = memory.totals(memory.peak_items(case, decision))
        least = memory.totals(memory.peak_items(case, without_speculation(decision)))
        for phase, memories in memory.totals(added_items(case, decision)).items():
            for where, size in memories.items():
                assert size == pytest.approx(most[phase][where] - least[phase][where], abs=1e-6)
        if not decision.policy.gamma:
            assert all(not items for memories in added_items(case, decision).values() for items in memories.values())


@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_item_is_of_weights_or_serves_to_generate(name: str) -> None:
    """An item that is new in `specsim.memory` has to be told apart here."""
    drafting = {"draft workspace", "draft kv", "draft kv (working set)"}
    bare, placed = PLACEMENTS[name]
    for case, decision in variants("interleaved", bare, placed):
        for memories in memory.peak_items(case, decision).values():
            for items in memories.values():
                assert items.keys() <= FOR_CANDIDATES.keys() | OF_WEIGHTS | drafting
                kept = sum(size for item, size in items.items() if item in OF_WEIGHTS)
                assert generation_bytes(items) == pytest.approx(sum(items.values()) - kept)
