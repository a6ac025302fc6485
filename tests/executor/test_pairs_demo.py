"""The demo pair that is shipped: small, complete, and a draft that really predicts its target."""

from __future__ import annotations

import json

import pytest
import torch

from executor import demo
from executor.checkpoint.checkpoint import open_checkpoint
from executor.pairs.agreement import agreement, load, matches
from executor.prompts import read_prompts
from executor.requests import Request
from executor.tokenizer import Tokenizer, load_tokenizer
from specsim.model import read_config

DIRECTORIES = (demo.target_directory(), demo.draft_directory())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = load_tokenizer(demo.target_directory())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def requests(tokenizer: Tokenizer) -> list[Request]:
    return read_prompts(demo.prompts_file(), tokenizer=tokenizer, vocab=1024, positions=1024, max_new_tokens=64)


def test_it_is_a_mixtral_and_a_mistral_of_at_most_eight_megabytes() -> None:
    target, draft = (read_config(directory) for directory in DIRECTORIES)
    assert (target.family, draft.family) == ("mixtral", "mistral")
    assert target.weight_bytes > 6 * draft.weight_bytes
    for directory, model in zip(DIRECTORIES, (target, draft), strict=True):
        assert sum(span.nbytes for span in open_checkpoint(directory).tensors.values()) == model.weight_bytes
    files = [file for file in demo.directory().rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_both_have_the_same_tokenizer_and_it_round_trips_any_text(tokenizer: Tokenizer) -> None:
    target, draft = (directory / "tokenizer.json" for directory in DIRECTORIES)
    assert target.read_bytes() == draft.read_bytes()
    for text in ("def f(x):\n\treturn x  # größer, 你好, 🐍\r\n", "    " * 9, "", "\x00\x7f"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_prompts_are_source_of_48_to_100_tokens(requests: list[Request], tokenizer: Tokenizer) -> None:
    lines = [json.loads(line) for line in demo.prompts_file().read_text(encoding="utf-8").splitlines()]
    assert len(requests) == len({request.id for request in requests}) == 32
    for request, line in zip(requests, lines, strict=True):
        assert line.keys() == {"id", "prompt"}
        assert 48 <= len(request.prompt) <= 100
        assert tokenizer.decode(request.prompt) == line["prompt"]


def test_the_draft_predicts_the_target_on_text_that_neither_has_seen(requests: list[Request]) -> None:
    target, draft = (load(directory, torch.float32) for directory in DIRECTORIES)
    found = matches(target, draft, [list(request.prompt) for request in requests[::4]], 32)
    assert agreement(found) > 0.6


def test_what_is_shipped_says_where_it_comes_from_and_names_no_machine() -> None:
    notice = (demo.directory() / "NOTICE").read_text(encoding="utf-8")
    assert "Python Software Foundation" in notice
    assert "python -m executor.pairs train" in notice
    for file in demo.directory().rglob("*.json*"):
        assert "/root" not in file.read_text(encoding="utf-8")
        assert "/home" not in file.read_text(encoding="utf-8")
