"""transformers models as the peers run them: bf16, resident or offloaded to the disk by accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessor


def resident(directory: Path) -> Any:
    """The whole model in RAM."""
    return _ready(AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16))


def offloaded(directory: Path, folder: Path, ram_bytes: int, experts: str) -> Any:
    """As many layers in RAM as accelerate puts into `ram_bytes`, the others on the disk: in the checkpoint, and where
    transformers 5 fuses experts, anew in `folder`. `experts` is an experts_implementation of transformers."""
    return _ready(
        AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.bfloat16,
            device_map="auto",
            max_memory={"cpu": ram_bytes},
            offload_folder=str(folder),
            experts_implementation=experts,
        )
    )


def _ready(model: Any) -> Any:
    """The last positions of a prefill are a strided view, for which PyTorch's matmul copies the head once per sequence:
    65 MB each here, so that from batch 16 on the peers were killed. A contiguous copy of a few KB spares them that."""
    model.lm_head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return model.eval()


class Watch(LogitsProcessor):
    """Calls `note` with the logits [batch, vocab] of each step, and changes nothing."""

    def __init__(self, note: Any) -> None:
        self.note = note

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.note(scores)
        return scores


def greedy(
    model: Any, prompts: Sequence[Sequence[int]], new_tokens: int, note: Any = None, **options: Any
) -> list[list[int]]:
    """Exactly `new_tokens` per prompt, greedily, end tokens or not."""
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=0,
            logits_processor=[Watch(note)] if note is not None else [],
            **options,
        )
    return [row[ids.shape[1] :] for row in out.tolist()]
