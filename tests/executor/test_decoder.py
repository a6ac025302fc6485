"""Every family against transformers (eager attention, float32): logits within 1e-4, and the same greedy tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from executor.decoder.resident import generate_greedy
from specsim.errors import InputError
from tests.executor import checkpoints
from tests.executor.decoder_stories import feed, load, poisoned, tokens

LENGTHS = (1, 2, 7, 33, 106, 300)


def oracle(family: str) -> Any:
    model = checkpoints.build(family)
    model.set_attn_implementation("eager")
    return model


def expected(model: Any, text: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([text])).logits[0]
    return logits


@pytest.mark.parametrize("numerics", ["exact", "fast"])
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_logits_are_those_of_transformers(family: str, numerics: str) -> None:
    model, theirs = load(family, numerics), oracle(family)
    texts = [tokens(length, seed=length) for length in LENGTHS]
    feeds = zip(poisoned(model, len(texts)), texts, strict=True)
    for text, logits in zip(texts, feed(model, *feeds), strict=True):
        torch.testing.assert_close(logits, expected(theirs, text), rtol=0, atol=1e-4)
    (cache,), text = poisoned(model, 1), texts[4]  # 106 tokens as a prompt, a verify pass and a decode step
    pieces = [feed(model, (cache, new))[0] for new in (text[:100], text[100:105], text[105:])]
    torch.testing.assert_close(torch.cat(pieces), expected(theirs, text), rtol=0, atol=1e-4)


@pytest.mark.parametrize("numerics", ["exact", "fast"])
@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_greedy_tokens_are_those_of_transformers(family: str, numerics: str) -> None:
    model, theirs = load(family, numerics), oracle(family)
    for length in (1, 40):
        prompt = tokens(length, seed=length)
        whole = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=16, pad_token_id=0)
        assert generate_greedy(model, prompt, 16) == whole[0, length:].tolist()


def test_greedy_stops_at_the_end_token_and_includes_it() -> None:
    model = load("llama")
    free = generate_greedy(model, [5, 6, 7], 8)
    ending = replace(model, arch=replace(model.arch, eos=(free[2],)))
    assert generate_greedy(ending, [5, 6, 7], 8) == free[: free.index(free[2]) + 1]


def test_a_prompt_needs_a_token() -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        generate_greedy(load("llama"), [], 4)
