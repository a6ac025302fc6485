"""Opening a checkpoint: what transformers writes is found, and what does not fit together is refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from executor.checkpoint.checkpoint import open_checkpoint
from specsim.bounded import short
from specsim.errors import InputError
from tests.executor.checkpoint_stories import edit_json, rewrite, saved_tensors, write_safetensors
from tests.executor.checkpoints import FAMILIES, make

INDEX = "model.safetensors.index.json"


def refusal(directory: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_a_saved_model_is_found_where_safetensors_finds_it(family: str, tmp_path: Path) -> None:
    directory = make(family, tmp_path, max_shard_size="20KB")
    checkpoint = open_checkpoint(directory)
    saved = saved_tensors(directory)
    assert (directory / INDEX).exists()
    assert checkpoint.tensors.keys() == saved.keys()
    for name, span in checkpoint.tensors.items():
        with span.file.open("rb") as file:
            file.seek(span.offset)
            assert file.read(span.nbytes) == saved[name].numpy().tobytes(), name


def test_a_single_file_needs_no_index(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make("llama", tmp_path))
    assert {span.file.name for span in checkpoint.tensors.values()} == {"model.safetensors"}


def test_a_tied_model_may_store_its_head_too(tmp_path: Path) -> None:
    directory = make("tied", tmp_path)
    assert "lm_head.weight" not in open_checkpoint(directory).tensors
    tensors = saved_tensors(directory)
    rewrite(directory, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    assert open_checkpoint(directory).architecture.model.tied


def test_tensors_that_the_decoder_does_not_use_are_ignored(tmp_path: Path) -> None:
    directory = make("llama", tmp_path, dtype="bfloat16")
    rewrite(directory, saved_tensors(directory) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert open_checkpoint(directory).architecture.dtype == torch.bfloat16


def test_the_dtype_of_all_tensors_wins_over_the_configs(tmp_path: Path) -> None:
    directory = make("llama", tmp_path)
    edit_json(directory / "config.json", dtype="bfloat16")
    assert open_checkpoint(directory).architecture.dtype == torch.float32


def test_shards_may_be_links_into_a_cache(tmp_path: Path) -> None:
    directory = make("llama", tmp_path / "snapshot", max_shard_size="20KB")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for i, shard in enumerate(sorted(directory.glob("*.safetensors"))):
        shard.rename(blobs / str(i))
        shard.symlink_to(os.path.relpath(blobs / str(i), directory))
    assert len(open_checkpoint(directory).tensors) == 21


def test_what_is_no_checkpoint_says_what_it_lacks(tmp_path: Path) -> None:
    assert "is not a directory" in refusal(tmp_path / "nowhere")
    assert "config.json: cannot be read" in refusal(tmp_path)
    directory = make("llama", tmp_path)
    (directory / "model.safetensors").unlink()
    assert "has no safetensors weights; it needs model.safetensors or" in refusal(directory)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    directory = make("llama", tmp_path, max_shard_size="20KB")
    (directory / "model-00002-of-00005.safetensors").unlink()
    assert "1 of 5 shards missing: 'model-00002-of-00005.safetensors'; get" in refusal(directory)


def test_missing_mistyped_and_misshaped_tensors_come_in_one_line(tmp_path: Path) -> None:
    directory = make("llama", tmp_path)
    tensors = saved_tensors(directory)
    del tensors["model.norm.weight"]
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].half()
    assert refusal(rewrite(directory, tensors)) == (
        f"{directory}: 'model.layers.1.mlp.up_proj.weight' is float16, not float32, 'model.norm.weight' is missing, "
        "'lm_head.weight' has shape [32, 96], not [96, 32]; get the checkpoint again, or its right config.json"
    )


def test_tensors_of_one_dtype_that_is_not_supported_are_mistyped(tmp_path: Path) -> None:
    directory = make("llama", tmp_path)
    message = refusal(rewrite(directory, {name: t.double() for name, t in saved_tensors(directory).items()}))
    assert "'model.embed_tokens.weight' is float64, not float32" in message
    assert message.count(" is float64") == 8
    assert ", and 13 more; get" in message


def test_a_config_of_another_size_is_told_from_the_shapes(tmp_path: Path) -> None:
    directory = make("llama", tmp_path)
    edit_json(directory / "config.json", num_hidden_layers=3)
    assert "'model.layers.2.input_layernorm.weight' is missing" in refusal(directory)


def test_an_expert_that_is_not_there_is_named(tmp_path: Path) -> None:
    directory = make("mixtral", tmp_path)
    tensors = saved_tensors(directory)
    del tensors["model.layers.1.block_sparse_moe.experts.3.w2.weight"]
    assert "'model.layers.1.block_sparse_moe.experts.3.w2.weight' is missing" in refusal(rewrite(directory, tensors))


def test_a_shard_that_was_cut_short_names_its_tensors(tmp_path: Path) -> None:
    directory = make("llama", tmp_path, max_shard_size="20KB")
    span = open_checkpoint(directory).tensors["model.layers.1.mlp.down_proj.weight"]
    os.truncate(span.file, span.end - 1)
    message = refusal(directory)
    assert f"'{span.name}' is truncated ({span.file.name} ends at byte {span.end - 1} of {span.end})" in message


def test_an_index_that_names_a_tensor_its_shard_has_not_is_refused(tmp_path: Path) -> None:
    directory = make("llama", tmp_path, max_shard_size="20KB")
    index = json.loads((directory / INDEX).read_text())
    edit_json(directory / INDEX, weight_map=index["weight_map"] | {"x": "model-00001-of-00005.safetensors"})
    assert f"{directory}: 'x' is missing; get" in refusal(directory)


@pytest.mark.parametrize(
    "shard", ["../model.safetensors", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "\0", "\ud800", "\n", "x" * 256]
)
def test_an_index_cannot_point_outside_its_directory(shard: str, tmp_path: Path) -> None:
    directory = make("llama", tmp_path, max_shard_size="20KB")
    edit_json(directory / INDEX, weight_map={"model.norm.weight": shard})
    assert f"names {short(shard)}, which is not a plain file name" in refusal(directory)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda file: file.write_text("{"), "is not JSON"),
        (lambda file: file.write_text("[" * 100_000), "is not JSON"),
        (lambda file: file.write_bytes(b"\xff"), "is not JSON"),
        (lambda file: file.write_text("[]"), "has no weight_map"),
        (lambda file: file.write_text('{"weight_map": {"x": 3}}'), "has no weight_map"),
    ],
)
def test_a_damaged_index_is_named(damage: Callable[[Path], object], complaint: str, tmp_path: Path) -> None:
    directory = make("llama", tmp_path, max_shard_size="20KB")
    damage(directory / INDEX)
    assert f"{INDEX}: {complaint}" in refusal(directory)


def test_a_config_that_asks_for_millions_of_tensors_is_refused_at_once(tmp_path: Path) -> None:
    directory = make("mixtral", tmp_path)
    edit_json(directory / "config.json", num_hidden_layers=1024, num_local_experts=1024)
    assert "and 999" in refusal(directory)  # of three millions, it stopped to count


def test_a_checkpoint_of_links_into_a_cache_is_read_as_the_files_would_be(tmp_path: Path) -> None:
    """As Hugging Face lays it out: every file in snapshots/REVISION is a link to ../../blobs/DIGEST."""
    directory, blobs = make("llama", tmp_path / "snapshots" / "main", max_shard_size="20KB"), tmp_path / "blobs"
    before = open_checkpoint(directory)
    blobs.mkdir()
    for number, file in enumerate(sorted(directory.iterdir())):
        file.rename(blobs / f"{number:064x}")
        file.symlink_to(Path("../../blobs") / f"{number:064x}")
    assert open_checkpoint(directory) == before
    linked = tmp_path / "current"
    linked.symlink_to("snapshots/main")
    assert open_checkpoint(linked).tensors.keys() == before.tensors.keys()


def test_links_that_lead_nowhere_or_round_are_missing_files(tmp_path: Path) -> None:
    directory = make("llama", tmp_path, max_shard_size="20KB")
    shard = directory / "model-00002-of-00005.safetensors"
    for to in ("gone", shard.name):
        shard.unlink()
        shard.symlink_to(to)
        assert "1 of 5 shards missing: 'model-00002-of-00005.safetensors'" in refusal(directory)


def test_a_link_to_a_file_that_is_no_checkpoint_shows_nothing_of_it(tmp_path: Path) -> None:
    directory = make("llama", tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("password = hunter2\n" * 100)
    for name in ("model.safetensors", "config.json"):
        (directory / name).unlink()
        (directory / name).symlink_to(secret)
        assert "hunter2" not in refusal(directory)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    directory = make("llama", tmp_path)
    for name in ("model.safetensors", "generation_config.json", "config.json"):
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)
        refusal(directory)


def test_a_sparse_shard_is_as_good_as_its_header(tmp_path: Path) -> None:
    """Holes read as zeros; a tensor of a tebibyte is refused by its shape before anything is allocated."""
    directory = make("llama", tmp_path)
    content = (directory / "model.safetensors").read_bytes()
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    (directory / "model.safetensors").write_bytes(header)
    os.truncate(directory / "model.safetensors", len(content))
    assert len(open_checkpoint(directory).tensors) == 21
    huge = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    write_safetensors(directory / "model.safetensors", {"model.embed_tokens.weight": huge})
    os.truncate(directory / "model.safetensors", 2**40 + 4096)
    assert "'model.embed_tokens.weight' has shape [274877906944], not [96, 32]" in refusal(directory)
    os.truncate(directory / "model.safetensors", 2**39)
    assert "'model.embed_tokens.weight' is truncated (model.safetensors ends at byte 549755813888" in refusal(directory)
