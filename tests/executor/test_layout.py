"""A model's units cover its weights exactly, and their views are the tensors that were saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.checkpoint.layout import (
    Extent,
    Layout,
    Piece,
    Span,
    Unit,
    attention_unit,
    attention_weights,
    direct,
    embedding_unit,
    embedding_weights,
    ffn_unit,
    head_unit,
    head_weights,
    packed,
    part_weights,
)
from specsim.partition import embedding_bytes, head_bytes, layer_units
from tests.executor.checkpoint_stories import read_direct, read_packed, rewrite, saved_tensors, write_safetensors
from tests.executor.checkpoints import FAMILIES, build, make

PAGE = 4096
Read = Callable[[Unit], tuple[Layout, Tensor]]


def spans(*offsets_and_bytes: tuple[str, int, int]) -> Unit:
    """A unit of bytes: (file, offset, nbytes) each."""
    return Unit(
        tuple(
            Piece(("gate", i), Span(Path(file), offset, nbytes), torch.uint8, (nbytes,))
            for i, (file, offset, nbytes) in enumerate(offsets_and_bytes)
        )
    )


def same(found: Tensor | None, saved: Tensor) -> bool:
    return found is not None and found.dtype == saved.dtype and torch.equal(found, saved)


def assert_is_the_model(checkpoint: Checkpoint, state: dict[str, Tensor], read: Read) -> None:
    """Every unit, with the FFN in one part and in several, holds the weights that transformers has in memory."""
    model = checkpoint.architecture.model
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}."
        attention = attention_weights(*read(attention_unit(checkpoint, layer)))
        names = {"norm": "input_layernorm.weight", "post_norm": "post_attention_layernorm.weight"}
        names |= {m: f"self_attn.{m}_proj.weight" for m in "qkvo"}
        names |= {f"{m}_bias": f"self_attn.{m}_proj.bias" for m in "qkvo"}
        names |= {f"{m}_norm": f"self_attn.{m}_norm.weight" for m in "qk"} | {"router": "mlp.gate.weight"}
        for field in fields(attention):
            saved = state.get(prefix + names[field.name])
            found = getattr(attention, field.name)
            assert found is None if saved is None else same(found, saved), (layer, field.name)
        ffn = model.layer_ffn(layer)
        for parts in (1, 2, 3, 4) if ffn.is_moe else (1, 3):
            experts: dict[int, dict[str, Tensor]] = {}
            for part in range(parts):
                for expert, weights in part_weights(*read(ffn_unit(checkpoint, layer, part, parts))).items():
                    held = {f.name: getattr(weights, f.name) for f in fields(weights)}
                    experts.setdefault(expert, {}).update({k: v for k, v in held.items() if v is not None})
            assert experts.keys() == set(range(ffn.experts))
            for expert, held in experts.items():
                if ffn.is_moe:
                    gate, up = state[f"{prefix}mlp.experts.gate_up_proj"][expert].chunk(2)
                    saved_matrices = {"gate": gate, "up": up, "down": state[f"{prefix}mlp.experts.down_proj"][expert]}
                else:
                    saved_matrices = {m: state[f"{prefix}mlp.{m}_proj.weight"] for m in ("gate", "up", "down")}
                assert held.keys() == saved_matrices.keys()
                assert all(same(held[m], saved) for m, saved in saved_matrices.items()), (layer, parts, expert)
    head = head_weights(*read(head_unit(checkpoint)))
    assert same(head.norm, state["model.norm.weight"])
    assert same(head.output, state["lm_head.weight"])
    assert same(embedding_weights(*read(embedding_unit(checkpoint))), state["model.embed_tokens.weight"])


@pytest.mark.parametrize("read", [read_packed, read_direct])
@pytest.mark.parametrize("family", FAMILIES)
def test_views_are_the_weights_that_were_saved(family: str, read: Read, tmp_path: Path) -> None:
    dtype = "bfloat16" if family.endswith("window") else "float32"
    checkpoint = open_checkpoint(make(family, tmp_path, dtype=dtype, max_shard_size="20KB"))
    assert_is_the_model(checkpoint, build(family, dtype=dtype).state_dict(), read)


@pytest.mark.parametrize("read", [read_packed, read_direct])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_fused_experts_are_ranges_of_their_tensor(family: str, read: Read, tmp_path: Path) -> None:
    model = build(family)
    model.save_pretrained(tmp_path, save_original_format=False)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors["model.layers.0.mlp.experts.gate_up_proj"].shape[0] == 4
    assert_is_the_model(checkpoint, model.state_dict(), read)


def test_mixtrals_experts_apart_under_the_newer_name(tmp_path: Path) -> None:
    make("mixtral", tmp_path)
    renamed = {name.replace("block_sparse_moe", "mlp"): tensor for name, tensor in saved_tensors(tmp_path).items()}
    checkpoint = open_checkpoint(rewrite(tmp_path, renamed))
    assert_is_the_model(checkpoint, build("mixtral").state_dict(), read_packed)


@pytest.mark.parametrize("family", FAMILIES)
def test_units_have_the_bytes_that_the_planner_counts(family: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make(family, tmp_path, dtype="bfloat16"))
    model = checkpoint.architecture.model
    total = head_unit(checkpoint).nbytes + (0 if model.tied else embedding_unit(checkpoint).nbytes)
    assert head_unit(checkpoint).nbytes == head_bytes(model)
    assert embedding_unit(checkpoint).nbytes == embedding_bytes(model)
    for layer in range(model.layers):
        for part_bytes in (1, 2**20):
            units = layer_units(model, model.layer_ffn(layer), part_bytes)
            attention = attention_unit(checkpoint, layer).nbytes
            parts = [ffn_unit(checkpoint, layer, part, units.parts).nbytes for part in range(units.parts)]
            assert attention == units.attention_bytes
            assert max(parts) == units.part_bytes
        total += attention + sum(parts)
    assert total == model.weight_bytes


def test_experts_that_do_not_divide_fill_the_first_groups(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make("qwen3_moe", tmp_path, num_experts=10, mlp_only_layers=[]))
    held = [{role[1] for role in roles(ffn_unit(checkpoint, 0, part, 3))} for part in range(3)]
    assert held == [{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9}]


def roles(unit: Unit) -> list[tuple[str, int]]:
    return [piece.role for piece in unit.pieces if isinstance(piece.role, tuple)]


def test_a_routed_fetch_holds_only_the_experts_asked_for(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make("mixtral", tmp_path))
    assert roles(ffn_unit(checkpoint, 0, 1, 2, experts=[3, 0])) == [("gate", 3), ("up", 3), ("down", 3)]
    whole, one = direct(ffn_unit(checkpoint, 0, 1, 2)), direct(ffn_unit(checkpoint, 0, 1, 2, experts=[3]))
    assert one.nbytes <= whole.nbytes  # it fits the slot that the whole part does
    nothing = direct(ffn_unit(checkpoint, 0, 1, 2, experts=[]))
    assert (nothing.nbytes, nothing.extents) == (0, ())


def test_a_dense_ffn_in_three_parts_is_gate_up_and_down(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make("llama", tmp_path))
    assert [roles(ffn_unit(checkpoint, 0, part, 3)) for part in range(3)] == [[("gate", 0)], [("up", 0)], [("down", 0)]]
    with pytest.raises(ValueError, match="a dense FFN in 2 parts"):
        ffn_unit(checkpoint, 0, 0, 2)
    with pytest.raises(ValueError, match="part 3 of 3"):
        ffn_unit(checkpoint, 0, 3, 3)


def test_pieces_of_a_packed_layout_begin_at_cache_lines() -> None:
    layout = packed(spans(("a", 5, 100), ("a", 105, 64), ("b", 0, 1)))
    assert (layout.offsets, layout.nbytes) == ((0, 128, 192), 256)


def test_a_direct_layout_takes_whole_blocks_and_merges_those_that_touch() -> None:
    layout = direct(spans(("a", 5000, 100), ("a", 5100, 4000), ("a", 9 * PAGE + 8, 8), ("b", 10 * PAGE, PAGE)))
    assert layout.extents == (
        Extent(Path("a"), start=PAGE, nbytes=2 * PAGE, at=0, used=9100 - PAGE),
        Extent(Path("a"), start=9 * PAGE, nbytes=PAGE, at=2 * PAGE, used=16),
        Extent(Path("b"), start=10 * PAGE, nbytes=PAGE, at=3 * PAGE, used=PAGE),
    )
    assert layout.offsets == (5000 - PAGE, 5100 - PAGE, 2 * PAGE + 8, 3 * PAGE)
    assert layout.nbytes == 4 * PAGE


def test_pieces_keep_their_order_where_the_file_has_another() -> None:
    layout = direct(spans(("a", 3000, 10), ("a", 0, 3000)))
    assert layout.offsets == (3000, 0)
    assert layout.extents == (Extent(Path("a"), 0, PAGE, 0, 3010),)


def test_views_share_the_buffers_memory(tmp_path: Path) -> None:
    layout, buffer = read_packed(embedding_unit(open_checkpoint(make("llama", tmp_path))))
    assert embedding_weights(layout, buffer).data_ptr() == buffer.data_ptr()


def test_a_weight_between_two_elements_is_copied(tmp_path: Path) -> None:
    tensors = saved_tensors(make("llama", tmp_path))
    header, data = {}, b""
    for name, tensor in tensors.items():
        end = len(data) + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), end]}
        data += tensor.numpy().tobytes()
    text = json.dumps(header).encode()
    text += b" " * ((1 - len(text)) % 4)  # the first tensor at an odd byte
    write_safetensors(tmp_path / "model.safetensors", text, data)
    assert_is_the_model(open_checkpoint(tmp_path), build("llama").state_dict(), read_direct)
