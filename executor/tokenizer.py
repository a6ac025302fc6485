"""Text to token ids and back, as the checkpoint's own tokenizer does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from specsim.errors import InputError

#: a directory with one of these has a tokenizer; without all of them, transformers has nothing to make one of
FILES: Final = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A tokenizer of transformers, reduced to what a run needs."""

    backend: Any

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, with the special tokens that the tokenizer puts around one (such as BOS)."""
        return list(self.backend(text, verbose=False)["input_ids"])

    def encode_bare(self, text: str) -> list[int]:
        """The ids of a text that has all its special tokens already, or goes on from another."""
        return list(self.backend(text, verbose=False, add_special_tokens=False)["input_ids"])

    def decode_all(self, ids: Sequence[int]) -> str:
        """The text of `ids` with special tokens."""
        return str(self.backend.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @property
    def special(self) -> frozenset[int]:
        """Ids that are no text."""
        return frozenset(self.backend.all_special_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens. Bytes that are no whole character yet come out as U+FFFD."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load_tokenizer(directory: str | Path) -> Tokenizer | None:
    """The tokenizer of a checkpoint directory, None where it has none. Nothing is fetched, no code of it is run.

    Raises InputError where its files cannot be read as a tokenizer.
    """
    directory = Path(directory)
    if not any((directory / name).is_file() for name in FILES):
        return None
    # Imported here and not above: it takes seconds, and a run from token ids does without.
    from transformers import AutoTokenizer

    try:
        backend = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the Rust tokenizers raise bare Exception
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        hint = "repair its files, or remove them and give prompts as input_ids"
        raise InputError(f"the tokenizer cannot be loaded: {reason}", where=str(directory), hint=hint) from None
    return Tokenizer(backend)
