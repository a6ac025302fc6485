"""The prompts that all competitors get."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path


def read_ids(file: Path, count: int) -> list[list[int]]:
    """Token ids of the first `count` prompts, all of one length, so that no peer has to pad. Raises ValueError where
    there are fewer, or they differ in length."""
    with file.open(encoding="utf-8") as lines:
        prompts = [list(map(int, json.loads(line)["input_ids"])) for line in islice(lines, count)]
    if len(prompts) < count:
        raise ValueError(f"{file} has {len(prompts)} prompts, and {count} are needed")
    if len({len(prompt) for prompt in prompts}) > 1:
        raise ValueError(f"the prompts of {file} differ in length")
    return prompts
