"""How models are cut into units."""

from __future__ import annotations

import pytest

from specsim.model import FeedForward, read_config
from specsim.partition import (
    BLOCK,
    LINE,
    MOST_PARTS,
    PART_BYTES,
    embedding_bytes,
    head_bytes,
    largest_slot_bytes,
    layer_units,
    whole_bytes,
)
from specsim.profiles import find, names
from specsim.units import MiB
from tests.specsim import stories


def test_a_small_dense_layer_is_two_units() -> None:
    model = stories.model()
    units = layer_units(model, model.ffn, PART_BYTES)
    assert (units.attention_bytes, units.parts, units.part_bytes) == (160, 1, 192)


def test_a_large_dense_ffn_is_cut_in_three() -> None:
    model = stories.wide()
    units = layer_units(model, model.ffn, PART_BYTES)
    assert (units.parts, units.part_bytes) == (3, 16384 * 16384 * 2)


def test_an_ffn_of_just_one_part() -> None:
    model = stories.wide(ffn=FeedForward(16384 // 3))  # 3 * 16384 * 5461 * 2 bytes, a little below 512 MiB
    assert layer_units(model, model.ffn, PART_BYTES).parts == 1


def test_large_experts_are_a_part_each_and_the_router_travels_with_the_attention() -> None:
    model = stories.moe()
    units = layer_units(model, model.ffn, PART_BYTES)
    assert (units.parts, units.part_bytes) == (4, 3 * 8192 * 8192 * 2)
    assert units.attention_bytes == (model.attention_parameters + 8192 * 4) * 2


def test_small_experts_move_in_groups() -> None:
    ffn = FeedForward(1024, experts=128, top_k=8)  # 48 MiB each at hidden 8192, so ten to a part
    units = layer_units(stories.moe(ffn=ffn), ffn, PART_BYTES)
    assert (units.parts, units.part_bytes) == (13, 10 * 48 * 2**20)


def test_an_expert_larger_than_a_part_stays_whole() -> None:
    ffn = FeedForward(16384, experts=4, top_k=2)
    assert layer_units(stories.moe(ffn=ffn), ffn, PART_BYTES).part_bytes == 768 * 2**20 > PART_BYTES


@pytest.mark.parametrize(
    ("part", "parts", "experts"),
    [(1024, 7, 19), (480, 13, 10), (384, 16, 8), (383, 16, 8), (48, 16, 8), (1, 16, 8)],  # never more than 16 parts
)
def test_small_parts_for_small_memories(part: int, parts: int, experts: int) -> None:
    ffn = FeedForward(1024, experts=128, top_k=8)  # 48 MiB each
    units = layer_units(stories.moe(ffn=ffn), ffn, part * MiB)
    assert (units.parts, units.part_bytes) == (parts, experts * 48 * MiB)


@pytest.mark.parametrize("part_bytes", [1, 100, 500, 10**6])
def test_experts_are_dealt_to_parts_of_which_none_is_empty(part_bytes: int) -> None:
    for experts in range(2, 130):
        ffn = FeedForward(2, experts=experts, top_k=1)
        units = layer_units(stories.model(ffn=ffn), ffn, part_bytes)
        per_part = units.part_bytes // (3 * 4 * 2 * 2)
        assert units.parts <= MOST_PARTS
        assert (units.parts - 1) * per_part < experts <= units.parts * per_part


def test_a_dense_ffn_has_three_parts_at_most() -> None:
    model = stories.model()  # 192 bytes
    cuts = [layer_units(model, model.ffn, size) for size in (192, 191, 1)]
    assert [(units.parts, units.part_bytes) for units in cuts] == [(1, 192), (3, 64), (3, 64)]


def test_what_stays_begins_on_cache_lines() -> None:
    model = stories.model()  # q and o 48 bytes, k and v 24, norms 8, and gate, up and down 64
    units = layer_units(model, model.ffn, PART_BYTES)
    assert (units.attention_held, units.part_held) == (6 * LINE, 3 * LINE)
    assert (head_bytes(model), embedding_bytes(model)) == (128 + LINE, 128)  # 80 bytes, and the norm's 8
    assert whole_bytes(model) == 2 * (6 + 3) * LINE + 128 + LINE + 128
    assert whole_bytes(stories.model(tied=True)) == whole_bytes(model) - 128


def test_what_visits_lies_in_whole_blocks() -> None:
    model = stories.model()
    assert layer_units(model, model.ffn, PART_BYTES).slot_bytes == 6 * 2 * BLOCK  # of the attention's six tensors
    wide = stories.wide()  # matrices of 512 MiB, which may begin and end inside a block
    assert layer_units(wide, wide.ffn, PART_BYTES).slot_bytes == 512 * MiB + BLOCK


def test_a_ring_of_small_parts_is_small() -> None:
    ffn = FeedForward(8 * 64, experts=16, top_k=1)  # matrices of one block
    model = stories.model(ffn=ffn)
    whole, four = 16 * 3 * 2 * BLOCK, 4 * 3 * 2 * BLOCK
    slots = [largest_slot_bytes(model, size) for size in (10**6, 12 * BLOCK, 1)]
    assert slots == [whole, four, 7 * 2 * BLOCK]  # the attention, with the router, is the largest at last


def test_a_ring_slot_holds_the_largest_unit_of_any_layer() -> None:
    ffn, dense = FeedForward(2, experts=2, top_k=1), FeedForward(10_000)
    model = stories.model(family="qwen3_moe", ffn=ffn, dense_ffn=dense, dense_layers=(1,))
    assert largest_slot_bytes(model, PART_BYTES) == layer_units(model, dense, PART_BYTES).slot_bytes == 3 * 21 * BLOCK


@pytest.mark.parametrize("name", names("model"))
def test_units_cover_every_parameter_and_waste_little(name: str) -> None:
    model = read_config(find("model", name))
    kinds = [model.layer_ffn(layer) for layer in range(model.layers)]
    units = [layer_units(model, kind, PART_BYTES) for kind in kinds]
    total = sum(u.attention_bytes + u.parts * u.part_bytes for u in units) + head_bytes(model) + embedding_bytes(model)
    if model.tied:
        total -= embedding_bytes(model)
    assert model.weight_bytes <= total <= 1.02 * model.weight_bytes
