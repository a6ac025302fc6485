"""Trains the demo pair: a small Mixtral on the standard library's source, then a smaller Mistral distilled from it.

The time box is the only budget. Learning rates follow a cosine of the share of the box that has passed, so that
training ends at rate zero on any machine; a faster one has seen more text by then.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import MistralConfig, MistralForCausalLM, MixtralConfig, MixtralForCausalLM

from executor.pairs.corpus import cut_prompts, encode, standard_library, train_tokenizer

CausalLM = Any  # a model of transformers, whose annotations do not cover calling it

VOCABULARY = 1024
WINDOW = 256  # tokens of a training sequence
BATCH = 4  # sequences of a step: small, because the number of steps is what a short box lacks
PROMPTS = 32
PROMPT, CONTINUATION = 64, 160  # tokens of the text, and of what the target makes of it, that the draft learns from
POOL, FRESH, EVERY = 512, 48, 48  # continuations that are held, and how many new ones come after so many steps
TARGET_SHARE = 0.6  # of the time box
TARGET_RATE, DRAFT_RATE = 3e-3, 4e-3

COMMON: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "initializer_range": 0.05,  # of the order of 1 / sqrt(hidden): a tied head starts with logits of order one
    "sliding_window": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "bos_token_id": None,
    "eos_token_id": 0,
}


def target_config() -> MixtralConfig:
    """About 3.5 million parameters, 1.5 million of them active for a token."""
    return MixtralConfig(
        **COMMON,
        hidden_size=192,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        router_aux_loss_coef=0.02,
    )


def draft_config() -> MistralConfig:
    """About 0.3 million parameters: 11 times fewer than the target."""
    return MistralConfig(
        **COMMON,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
    )


@dataclass(frozen=True, slots=True)
class Box:
    """A time box: `passed` runs from 0 to 1 while it lasts."""

    start: float
    seconds: float

    @property
    def passed(self) -> float:
        return min(1.0, (time.monotonic() - self.start) / self.seconds)


def train(directory: Path, *, minutes: float, seed: int) -> None:
    """Write DIRECTORY/target, DIRECTORY/draft and DIRECTORY/prompts.jsonl."""
    torch.manual_seed(seed)
    corpus = standard_library()
    tokenizer = train_tokenizer(corpus, VOCABULARY)
    text = torch.tensor(encode(tokenizer, corpus.train))
    _say(f"{len(corpus.train)} files, {len(text)} tokens to train on; {len(corpus.held_out)} files held out")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for prompt in cut_prompts(tokenizer, corpus.held_out, PROMPTS, seed):
            file.write(json.dumps(prompt) + "\n")
    seconds = 60 * minutes
    target: CausalLM = MixtralForCausalLM(target_config())
    train_target(target, text, Box(time.monotonic(), TARGET_SHARE * seconds), seed)
    target.to(torch.bfloat16).float()  # distil from the weights as they are shipped
    draft: CausalLM = MistralForCausalLM(draft_config())
    train_draft(draft, target, text, Box(time.monotonic(), (1 - TARGET_SHARE) * seconds), seed)
    for name, model in (("target", target), ("draft", draft)):
        model.to(torch.bfloat16).save_pretrained(directory / name)
        tokenizer.save_pretrained(directory / name)


def train_target(target: CausalLM, text: Tensor, box: Box, seed: int) -> None:
    """Next-token loss, with the load-balancing loss of the router."""
    windows = _windows(text, seed)

    def loss() -> Tensor:
        batch = next(windows)
        result: Tensor = target(batch, labels=batch, output_router_logits=True).loss
        return result

    _optimise(target, loss, TARGET_RATE, box, "target")


def train_draft(draft: CausalLM, target: CausalLM, text: Tensor, box: Box, seed: int) -> None:
    """KL divergence to the target, half on the text and half on the target's own continuations of it."""
    windows = _windows(text, seed + 1)
    continued = _continuations(target, _windows(text, seed + 2))
    target.eval()

    def loss() -> Tensor:
        batch = torch.cat([next(windows)[: BATCH // 2, : PROMPT + CONTINUATION], next(continued)])
        with torch.no_grad():
            wanted = log_softmax(target(batch).logits, -1)
        found = log_softmax(draft(batch).logits, -1)
        return kl_div(found, wanted, reduction="none", log_target=True).sum(-1).mean()

    _optimise(draft, loss, DRAFT_RATE, box, "draft")


def _windows(text: Tensor, seed: int) -> Iterator[Tensor]:
    """Random cuts of the text, [BATCH, WINDOW]."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        first = torch.randint(len(text) - WINDOW, (BATCH, 1), generator=generator)
        yield text[first + torch.arange(WINDOW)]


def _continuations(target: CausalLM, windows: Iterator[Tensor]) -> Iterator[Tensor]:
    """Text prompts with the target's own continuations, [BATCH / 2, PROMPT + CONTINUATION]; two of three are greedy.

    They are drawn from a pool of the newest ones, refilled every few steps, since generating costs more than learning.
    """
    pool: list[Tensor] = []
    while True:
        for sampled in (False, False, True):
            prompts = torch.cat([next(windows)[:, :PROMPT] for _ in range(FRESH // BATCH)])
            rows = target.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                max_new_tokens=CONTINUATION,
                min_new_tokens=CONTINUATION,  # rows of one length; the end token is learned from the text
                do_sample=sampled,
                pad_token_id=0,
            )
            pool = [*pool, *rows][-POOL:]
            for _ in range(EVERY):
                yield torch.stack([pool[i] for i in torch.randint(len(pool), (BATCH // 2,)).tolist()])


def _optimise(model: CausalLM, loss: Callable[[], Tensor], rate: float, box: Box, name: str) -> None:
    """AdamW until the box is full: a warm-up over its first fiftieth, then a cosine down to zero."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    model.train()
    step, mean = 0, math.nan
    while (passed := box.passed) < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, 50 * passed + 0.02) * (1 + math.cos(math.pi * passed)) / 2
        value = loss()
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean = value.item() if step == 0 else 0.98 * mean + 0.02 * value.item()
        step += 1
        if step % 100 == 0:
            _say(f"{name}: step {step}, loss {mean:.3f}, {passed:.0%} of {box.seconds:.0f} s")
    model.eval()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
