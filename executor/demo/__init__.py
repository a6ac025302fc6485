"""The demo pair: a small Mixtral that writes Python, and a smaller Mistral that predicts it. NOTICE tells its making.

`python -m executor.pairs train` makes one like it; `python -m executor.pairs agreement` measures it.
"""

from __future__ import annotations

from pathlib import Path


def directory() -> Path:
    """The installed pair: target/, draft/, pair.yaml and prompts.jsonl."""
    return Path(__file__).parent


def target_directory() -> Path:
    return directory() / "target"


def draft_directory() -> Path:
    return directory() / "draft"


def pair_file() -> Path:
    """How often the target accepts the draft, measured on the last 16 of the prompts; the demo runs the first."""
    return directory() / "pair.yaml"


def prompts_file() -> Path:
    """Thirty-two excerpts of source that neither model was trained on, 48 to 100 tokens each."""
    return directory() / "prompts.jsonl"
