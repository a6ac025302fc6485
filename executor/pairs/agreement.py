"""How often the draft's choice is the target's: measured with transformers on text that the target writes greedily.

Acceptance given that all before it was accepted depends on the target's tokens alone, so that one pass of the draft
over the finished text is enough to know every round that speculation would have made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

Matches = list[list[bool]]  # [prompt][new token]: the draft's most likely token is the target's


def load(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A checkpoint in transformers, without its bars of progress."""
    silence: Callable[[], None] = logging.disable_progress_bar
    silence()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True)
    return model


@torch.inference_mode()
def matches(target: PreTrainedModel, draft: PreTrainedModel, prompts: Sequence[Sequence[int]], new: int) -> Matches:
    """Continue each prompt by up to `new` tokens, fewer where the target ends it; prompts of one length go together."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        places[len(prompt)].append(place)
    found: Matches = [[] for _ in prompts]
    for length, group in places.items():
        rows = _continue(target, torch.tensor([prompts[place] for place in group]), new)
        equal = draft(rows).logits[:, length - 1 : -1].argmax(-1) == rows[:, length:]
        for place, row, text in zip(group, equal.tolist(), rows[:, length:].tolist(), strict=True):
            end = target.config.eos_token_id
            found[place] = row[: text.index(end) + 1] if end in text else row
    return found


def agreement(found: Matches) -> float:
    """Share of all new tokens that the draft would have chosen."""
    flat = [equal for row in found for equal in row]
    return sum(flat) / len(flat)


def acceptance(found: Matches, gamma: int) -> list[float | None]:
    """Of the rounds that reach position 1, 2, ... gamma, the share in which it is accepted; None where none reach it.

    A round drafts `gamma` tokens, keeps those before the first that differs, and gains one token of the target's.
    """
    tried, accepted = [0] * gamma, [0] * gamma
    for row in found:
        first = 0
        while first < len(row):
            for position, equal in enumerate(row[first : first + gamma]):
                tried[position] += 1
                first += 1  # an accepted token, or the target's in place of the one that differs
                if not equal:
                    break
                accepted[position] += 1
            else:
                first += 1  # all accepted: the verify pass gives one more
    return [yes / all_ if all_ else None for yes, all_ in zip(accepted, tried, strict=True)]


def _continue(model: PreTrainedModel, prompts: Tensor, new: int) -> Tensor:
    """Greedy continuations, [prompts, length + new]."""
    cache, rows, step = None, prompts, prompts
    for _ in range(new):
        output = model(step, past_key_values=cache, use_cache=True)
        cache, step = output.past_key_values, output.logits[:, -1:].argmax(-1)
        rows = torch.cat([rows, step], 1)
    return rows
