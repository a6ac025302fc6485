"""The script that an export for accelerate comes with: it needs torch, transformers and accelerate, but not specsim."""

from __future__ import annotations

from typing import Final

SCRIPT: Final = '''\
"""Greedy generation with transformers and accelerate, the weights placed as accelerate.json beside this file says.

    python generate.py --target DIR --prompts FILE -o FILE [--offload-folder DIR] [--auto]

Prompts are JSON lines, {"prompt": "..."} or {"input_ids": [...]}, with "id" and "max_new_tokens" as needed.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Greedy generation with weights placed by accelerate.")
    parser.add_argument("--target", type=Path, required=True, help="checkpoint directory")
    parser.add_argument("--prompts", type=Path, required=True, help="JSON lines")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON lines: id, output_ids, text")
    parser.add_argument("--offload-folder", type=Path, default=Path("offload"), help="for weights on the disk")
    parser.add_argument("--auto", action="store_true", help="let accelerate place modules within max_memory")
    options = parser.parse_args()
    chosen = json.loads((Path(__file__).parent / "accelerate.json").read_text(encoding="utf-8"))
    if options.auto:
        memory = {int(name) if name.isdigit() else name: size for name, size in chosen["max_memory"].items()}
        placing = {"device_map": "auto", "max_memory": memory}
    else:
        placing = {"device_map": chosen["device_map"]}
    model = AutoModelForCausalLM.from_pretrained(
        options.target,
        dtype=chosen["dtype"],
        attn_implementation=chosen["attn_implementation"],
        offload_folder=options.offload_folder,
        **placing,
    ).eval()
    lines = options.prompts.read_text(encoding="utf-8").splitlines()
    requests = [{"id": str(n), **json.loads(line)} for n, line in enumerate(lines, start=1) if line.strip()]
    asks_text = any("prompt" in request for request in requests)
    tokenizer = AutoTokenizer.from_pretrained(options.target) if asks_text else None
    with options.output.open("w", encoding="utf-8") as file:
        for first in range(0, len(requests), chosen["batch"]):
            group = requests[first : first + chosen["batch"]]
            for request, ids in zip(group, generate(model, tokenizer, group, chosen["max_new_tokens"])):
                text = tokenizer.decode(ids, skip_special_tokens=True) if tokenizer else None
                file.write(json.dumps({"id": request["id"], "output_ids": ids, "text": text}) + "\\n")


def generate(model, tokenizer, group, most):
    """The new tokens of each request of a batch, up to its own end."""
    prompts = [request.get("input_ids") or tokenizer(request["prompt"])["input_ids"] for request in group]
    wanted = [request.get("max_new_tokens", most) for request in group]
    width = max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    device = model.hf_device_map.get("model.embed_tokens", "cpu") if device.type == "meta" else device
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=max(wanted), do_sample=False, pad_token_id=0
        )
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    rows = [row[width : width + count] for row, count in zip(out.tolist(), wanted)]
    return [row[: next((n + 1 for n, token in enumerate(row) if token in ends), len(row))] for row in rows]


if __name__ == "__main__":
    main()
'''
