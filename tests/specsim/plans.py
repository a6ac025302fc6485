"""A tiny target and draft whose whole search takes a second or two, and the command line called in-process."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from specsim import machines
from specsim.acceptance import Acceptance
from specsim.answer import Plan
from specsim.case import Case
from specsim.cli.main import entry
from specsim.model import from_config
from specsim.planfile import to_dict
from specsim.planner.candidates import Fixed
from specsim.planner.plan import make_plan
from specsim.units import MiB
from specsim.workload import Workload

#: 8 layers of 4 experts, 53 MiB each; with 1000 tokens of vocabulary the head is small
TARGET: dict[str, Any] = {
    "model_type": "mixtral",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
}
DRAFT: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
}
#: what makes a search look at a handful of policies
QUICK: dict[str, Any] = {"strategy": "serial", "gamma": 3, "batch": 4}


def checkpoint(folder: Path, config: Mapping[str, Any]) -> str:
    """A checkpoint directory of which only the config is there, as its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def tiny(folder: Path) -> list[str]:
    """Options of `specsim plan` that ask for the tiny target on a card with room for half of it."""
    target, draft = checkpoint(folder / "target", TARGET), checkpoint(folder / "draft", DRAFT)
    work = ["--prompt-tokens", "16", "--output-tokens", "8", "--requests", "4"]
    return ["--gpu", "rtx4090", "--vram", "320MiB", "--target", target, "--draft", draft, *work]


def case(*, gpu: bool = True, vram: float = 320 * MiB, ram: float | None = None) -> Case:
    """The same question as a value; without a GPU the RAM holds half of the target."""
    if gpu:
        machine = machines.assemble(gpu="rtx4090", vram=vram, ram=ram)
    else:
        machine = machines.assemble(host="desktop-ddr5-64g", ram=ram or 320 * MiB)
    target, draft = from_config(TARGET, name="target", where="tests"), from_config(DRAFT, name="draft", where="tests")
    work = Workload("work", "work", 16, 16, 16, 8, 4)
    return Case(machine, target, work, draft, Acceptance.constant(0.7, "assumed", "tests"))


def plan(*, gpu: bool = True) -> Plan:
    """The best plan for `case` with what `QUICK` settles, made once per process."""
    return _plan(gpu)


@cache
def _plan(gpu: bool) -> Plan:
    return make_plan(case(gpu=gpu), Fixed(**QUICK))


def data(**options: Any) -> dict[str, Any]:
    """The plan as its file has it, to be spoilt."""
    return copy.deepcopy(to_dict(plan(**options)))


Outcome = tuple[int, str, str]  # exit status, stdout, stderr


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    """Run a command line in this process."""
    capsys.readouterr()
    status = entry(arguments)
    out, err = capsys.readouterr()
    return status, out, err
