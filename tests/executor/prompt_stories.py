"""A tokenizer of eight words, in a directory as checkpoints have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = ("<s>", "<unk>", "once", "upon", "a", "time", "the", "end")


def make_tokenizer(directory: Path) -> Path:
    """Ids are places in `WORDS`; every prompt begins with <s>."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped: Any = PreTrainedTokenizerFast  # without types
    wrapped(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>").save_pretrained(directory)
    return directory
