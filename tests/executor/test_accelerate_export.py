"""The script and the map that an export for accelerate writes, run: the tokens are transformers' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import specsim
from specsim.units import MiB
from tests.conftest import ROOT

pytest.importorskip("accelerate", reason="accelerate is not installed")

DEMO = ROOT / "executor" / "demo"
REQUESTS, NEW_TOKENS = 5, 6


@pytest.fixture(scope="module")
def export() -> Any:
    """The demo target in less RAM than its 6.9 MB take."""
    plan = specsim.plan(
        machine="desktop-cpu",
        ram=6.5 * MiB,
        target=DEMO / "target",
        requests=REQUESTS,
        prompt_tokens=91,
        output_tokens=NEW_TOKENS,
        disk_bytes_per_s=25e6,
    )
    return specsim.export(plan, for_="accelerate")


def theirs(batch: int) -> list[list[int]]:
    """Greedy tokens of the whole model in memory, in the same batches, each up to its end."""
    model = AutoModelForCausalLM.from_pretrained(DEMO / "target", dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "target", padding_side="left", pad_token="<|end|>")
    lines = (DEMO / "prompts.jsonl").read_text().splitlines()[:REQUESTS]
    prompts, found = [json.loads(line)["prompt"] for line in lines], []
    for first in range(0, len(prompts), batch):
        asked = tokenizer(prompts[first : first + batch], return_tensors="pt", padding=True)
        out = model.generate(
            asked["input_ids"],
            attention_mask=asked["attention_mask"],
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=0,
        )
        found += [row[asked["input_ids"].shape[1] :] for row in out.tolist()]
    end = model.generation_config.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in found]


@pytest.mark.parametrize("placing", [[], ["--auto"]])
def test_the_script_generates_what_transformers_generates(export: Any, placing: list[str], tmp_path: Path) -> None:
    for name, text in export.files.items():
        (tmp_path / name).write_text(text)
    chosen = json.loads(export.files["accelerate.json"])
    assert {"cpu", "disk"} == set(chosen["device_map"].values())
    prompts = (DEMO / "prompts.jsonl").read_text().splitlines()[:REQUESTS]
    (tmp_path / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    command = [sys.executable, "generate.py", "--target", str(DEMO / "target"), "--prompts", "prompts.jsonl"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "-o", "out.jsonl", *placing],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in prompts]
    assert [row["output_ids"] for row in rows] == theirs(chosen["batch"])
    assert all(isinstance(row["text"], str) for row in rows)
