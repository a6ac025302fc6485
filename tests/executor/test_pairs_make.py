"""Generated pairs: real checkpoints of the size that was announced, whose agreement obeys the dial."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, PreTrainedModel

from executor.checkpoint.checkpoint import open_checkpoint
from executor.pairs.agreement import acceptance, agreement, load, matches
from executor.pairs.calibrate import calibrate, likeness
from executor.pairs.commands import pairs
from executor.pairs.grow import Pair
from executor.pairs.make import make, plan_pair
from executor.pairs.prompts import random_prompts
from executor.pairs.recipe import CHUNK, Recipe, chunks
from specsim.errors import InputError
from specsim.model import read_config

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 300,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "torch_dtype": "float32",
}


def tiny(**changes: Any) -> Pair:
    return plan_pair(SIZES | changes, draft_layers=2, draft_ratio=None)


def write(directory: Path, pair: Pair, noise: float, *, seed: int = 0, shard_bytes: int = 1 << 30) -> Path:
    make(directory, pair, noise=noise, seed=seed, shard_bytes=shard_bytes, say=lambda _: None)
    return directory


def measured(directory: Path, pair: Pair) -> float:
    target, draft = load(directory / "target", torch.float32), load(directory / "draft", torch.float32)
    return agreement(matches(target, draft, random_prompts(pair.target.vocab, 8, seed=1), 64))


def strictly_loaded(directory: Path) -> PreTrainedModel:
    """As transformers loads it; every tensor of the model is in the files, and no other."""
    model, report = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, output_loading_info=True)
    assert {key: list(found) for key, found in report.items() if found} == {}
    return model


def tensor_bytes(directory: Path) -> int:
    return sum(span.nbytes for span in open_checkpoint(directory).tensors.values())


@pytest.mark.parametrize("experts", [1, 4])
def test_both_directories_are_checkpoints_to_transformers_and_to_us(tmp_path: Path, experts: int) -> None:
    pair = tiny(num_local_experts=experts, num_experts_per_tok=min(experts, 2), torch_dtype="bfloat16")
    write(tmp_path / "pair", pair, 0.1)
    for model in (pair.target, pair.draft):
        directory = tmp_path / "pair" / model.name
        assert read_config(directory) == model
        assert strictly_loaded(directory).num_parameters() == model.parameters
        assert tensor_bytes(directory) == model.weight_bytes


def test_shards_hold_what_one_file_holds(tmp_path: Path) -> None:
    pair = tiny()
    whole = strictly_loaded(write(tmp_path / "whole", pair, 0.1) / "target").state_dict()
    write(tmp_path / "cut", pair, 0.1, shard_bytes=100_000)
    files = sorted((tmp_path / "cut" / "target").glob("*.safetensors"))
    index = json.loads((tmp_path / "cut/target/model.safetensors.index.json").read_text())
    assert len(files) > 5
    assert {file.name for file in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == pair.target.weight_bytes == tensor_bytes(tmp_path / "cut" / "target")
    cut = strictly_loaded(tmp_path / "cut" / "target").state_dict()
    assert all(torch.equal(cut[name], tensor) for name, tensor in whole.items())


def test_a_seed_stands_for_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write(tmp_path / name, tiny(), 0.1, seed=seed)

    def content(name: str) -> dict[str, bytes]:
        root = tmp_path / name
        return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    assert content("one") == content("two")
    one, other = content("one"), content("other")
    assert {file for file in one if one[file] != other[file]} == {
        "prompts.jsonl",
        "target/model.safetensors",
        "draft/model.safetensors",
    }


def test_without_noise_the_draft_is_always_right_and_with_full_noise_hardly_ever(tmp_path: Path) -> None:
    pair = tiny()
    assert measured(write(tmp_path / "same", pair, 0.0), pair) == 1.0
    assert measured(write(tmp_path / "other", pair, 1.0), pair) < 0.1


def test_calibration_reaches_the_agreement_asked_for(tmp_path: Path) -> None:
    pair = tiny()
    found = calibrate(pair, 0.7, seed=0, say=lambda _: None)
    assert not found.likeness
    assert found.agreement == pytest.approx(0.7, abs=0.05)
    assert measured(write(tmp_path / "pair", pair, found.noise), pair) == pytest.approx(0.7, abs=0.1)


def test_the_ends_of_the_dial_need_no_search() -> None:
    lines: list[str] = []
    assert calibrate(tiny(), 1.0, seed=0, say=lines.append).noise == 0.0
    assert calibrate(tiny(), 0.0, seed=0, say=lines.append).noise == 1.0
    assert len(lines) == 2


def test_a_big_pair_is_calibrated_on_a_narrow_likeness() -> None:
    big = plan_pair(SIZES | {"hidden_size": 1024, "intermediate_size": 3584}, draft_layers=1, draft_ratio=None)
    small = likeness(big)
    assert likeness(tiny()) == tiny()
    assert small.target.weight_bytes < big.target.weight_bytes / 50
    kept = ("layers", "vocab", "family", "dtype")
    assert [getattr(small.target, name) for name in kept] == [getattr(big.target, name) for name in kept]
    assert (small.draft.layers, small.target.ffn.experts, small.target.ffn.top_k) == (1, 4, 2)


def test_a_generated_model_does_not_repeat_itself(tmp_path: Path) -> None:
    pair = tiny()
    draft = load(write(tmp_path / "pair", pair, 0.1) / "draft", torch.float32)
    prompts = torch.tensor(random_prompts(pair.draft.vocab, 8, seed=2))
    rows = draft.generate(prompts, do_sample=False, max_new_tokens=160, pad_token_id=0)[:, prompts.shape[1] :]
    for row in rows.tolist():
        assert not any(row[-60 - period : -period] == row[-60:] for period in range(1, 51))
        assert len(set(row)) > 60


def test_writing_holds_chunks_not_tensors(tmp_path: Path) -> None:
    pair = tiny(hidden_size=512, intermediate_size=1024, vocab_size=4096)  # 23 million values
    assert pair.target.parameters + pair.draft.parameters > 100 * CHUNK
    tracemalloc.start()
    write(tmp_path / "pair", pair, 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 4 * CHUNK  # float32 values; an expert's tensors alone are six chunks


def test_streams_are_uniform_and_independent() -> None:
    def values(stream: str) -> torch.Tensor:
        return torch.frombuffer(
            bytearray(b"".join(chunks(Recipe((CHUNK + 5,), ((1.0, stream),)), 0, "float32"))), dtype=torch.float32
        )

    a, b = values("a"), values("b")
    assert len(a) == CHUNK + 5
    assert abs(a.mean()) < 0.01
    assert abs(a.var() - 1) < 0.01
    assert a.abs().max() <= 12**0.5 / 2
    assert abs((a * b).mean()) < 0.01


def test_the_draft_has_its_layers_spread_over_the_target() -> None:
    pair = plan_pair(SIZES | {"num_hidden_layers": 7}, draft_layers=3, draft_ratio=None)
    assert [pair.origin(layer) for layer in range(7)] == [0, None, 1, None, 2, None, None]
    assert [tiny().origin(layer) for layer in range(4)] == [0, None, 1, None]


def test_a_ratio_chooses_the_drafts_layers() -> None:
    sizes = SIZES | {"num_hidden_layers": 16, "num_local_experts": 8}
    ratios = [plan_pair(sizes, draft_layers=n, draft_ratio=None).ratio for n in range(1, 17)]
    assert plan_pair(sizes, draft_layers=None, draft_ratio=ratios[2] + 0.01).draft.layers == 3
    assert plan_pair(sizes, draft_layers=None, draft_ratio=None).draft.layers == 4


def test_acceptance_is_that_of_the_rounds_that_speculation_makes() -> None:
    # rounds of 2: [yes yes] + bonus, [yes no], [no], [yes]
    row = [True, True, False, True, False, False, True]
    assert acceptance([row], 2) == [3 / 4, 1 / 2]
    assert agreement([row]) == 4 / 7
    assert acceptance([[False, False]], 2) == [0.0, None]


def refusal(*arguments: str) -> str:
    return str(CliRunner().invoke(pairs, ["make", *arguments]).exception)


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    assert refusal("-o", new) == "give either --agreement or --noise; such as --agreement 0.7"
    assert "num_attention_heads 16 is not a multiple of num_key_value_heads 3" in refusal(
        "-o", new, "--noise", "0", "--kv-heads", "3"
    )
    assert "num_experts_per_tok 9 is more than the 8 experts" in refusal("-o", new, "--noise", "0", "--top-k", "9")
    assert "the draft has 17 layers, the target 16" in refusal("-o", new, "--noise", "0", "--draft-layers", "17")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "exists and is not an empty directory" in refusal("-o", str(tmp_path / "full"), "--noise", "0")
    with pytest.raises(InputError, match=r"the pair takes 2.00 TiB, and .* are free; make room"):
        write(Path(new), tiny(vocab_size=2**31 - 1), 0.0)
    assert not Path(new).exists()


def test_one_expert_is_a_dense_target_and_needs_no_top_k(tmp_path: Path) -> None:
    sizes = "--hidden 64 --layers 2 --ffn 96 --vocab 300 --heads 4 --kv-heads 2 --experts 1 --noise 0.5"
    assert CliRunner().invoke(pairs, ["make", "-o", str(tmp_path / "pair"), *sizes.split()]).exit_code == 0
    assert read_config(tmp_path / "pair" / "target").family == "mistral"


def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    sizes = "--hidden 64 --layers 4 --ffn 96 --vocab 300 --heads 4 --kv-heads 2"
    done = CliRunner().invoke(pairs, ["make", "-o", str(tmp_path / "pair"), "--noise", "0", *sizes.split()])
    made = json.loads(done.stdout)
    assert done.exit_code == 0
    assert made["target_bytes"] == tensor_bytes(tmp_path / "pair" / "target")
    assert made["ratio"] == pytest.approx(made["target_bytes"] / made["draft_bytes"], abs=0.01)
    done = CliRunner().invoke(pairs, ["agreement", str(tmp_path / "pair"), "--prompts", "4", "--new-tokens", "8"])
    found = json.loads(done.stdout)
    assert (found["prompts"], found["tokens"]) == (4, 32)
    assert found["agreement"] > 0.9  # not 1: bfloat16 rounds the experts' weighted sum
