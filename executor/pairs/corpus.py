"""The demo pair's text: the source of this Python's own standard library, a tokenizer trained on it, and prompts.

About one file in twenty, chosen by a hash of its name, is held out of all training; the prompts are cut from those.
"""

from __future__ import annotations

import hashlib
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from specsim.errors import InputError

Tokenizing = Any  # a tokenizer of transformers, whose annotations do not say that it encodes a text to a list

#: ends every file of the training text and, as `eos_token_id`, a request
END = "<|end|>"
#: tests, vendored wheels, generated tables and prose: little of it is code that a person wrote by hand
EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "encodings", "pydoc_data"}
EXCLUDED |= {"turtledemo", "ensurepip", "lib-dynload", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts by their path below the standard library, in sorted order."""

    train: dict[str, str]
    held_out: dict[str, str]


def standard_library() -> Corpus:
    """Read this interpreter's standard library, but for files that describe the machine (`_sysconfigdata...`).

    Raises InputError where it is not there as source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    train: dict[str, str] = {}
    held_out: dict[str, str] = {}
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if EXCLUDED.isdisjoint(name.parts) and not name.name.startswith("_sysconfigdata"):
            side = held_out if hashlib.sha256(name.as_posix().encode()).digest()[0] < 256 / 20 else train
            side[name.as_posix()] = file.read_text(encoding="utf-8", errors="replace")
    if not (train and held_out):
        raise InputError("has no Python source to train on", where=str(root), hint="use an interpreter that has")
    return Corpus(train, held_out)


def train_tokenizer(corpus: Corpus, entries: int) -> Tokenizing:
    """A byte-level BPE of `entries` tokens, `END` (token 0) and all 256 bytes among them: it round-trips any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=entries, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus.train.values(), trainer)
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, eos_token=END, clean_up_tokenization_spaces=False, model_max_length=1024)


def encode(tokenizer: Tokenizing, texts: dict[str, str]) -> list[int]:
    """All texts in one row of tokens, each ended by `END`."""
    ids: list[int] = []
    for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts.values())):
        ids += [*encoding.ids, tokenizer.eos_token_id]
    return ids


def cut_prompts(tokenizer: Tokenizing, texts: dict[str, str], count: int, seed: int) -> list[dict[str, str]]:
    """`count` prompts of 48 to 100 tokens, each from the start of a line, file after file in turn."""
    rng = random.Random(seed)
    prompts: list[dict[str, str]] = []
    sources = {name: text.splitlines(keepends=True) for name, text in texts.items()}
    sources = {name: lines for name, lines in sources.items() if len(lines) >= 100}
    while len(prompts) < count:
        for name, lines in list(sources.items())[: count - len(prompts)]:
            first = rng.randrange(30, len(lines) - 30)  # past the header comments
            length = rng.randrange(56, 93)
            prompt = next(_cuts(tokenizer, "".join(lines[first:]), length), None)
            if prompt is not None:
                prompts.append({"id": f"{name}:{first + 1}", "prompt": prompt})
    return prompts


def _cuts(tokenizer: Tokenizing, text: str, length: int) -> Iterator[str]:
    """Beginnings of `text` of about `length` tokens that are whole characters and encode to 48 to 100 tokens."""
    ids = tokenizer.encode(text[: 20 * length])
    for n in range(min(length, len(ids)), 0, -1):
        prompt = tokenizer.decode(ids[:n])
        if text.startswith(prompt) and 48 <= len(tokenizer.encode(prompt)) <= 100:
            yield prompt
