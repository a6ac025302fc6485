"""A pair of models planned for a machine without a GPU, and run: what the measurements of memory share."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.live import LiveBytes
from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.checkpoint.read import Reader
from executor.devices import Devices, worker_for
from executor.engine import Engine
from executor.job import Job
from executor.links import Link
from executor.prompts import read_prompts
from executor.requests import Request
from executor.setup import NUMERICS, Ways, prepare
from executor.tokenizer import load_tokenizer
from specsim import api
from specsim.answer import Plan
from specsim.case import Case
from specsim.errors import InfeasibleError
from specsim.memory import Items, peak_items
from specsim.planner.cap import cap_caches

REQUESTS: Final = 12


@dataclass(frozen=True, slots=True)
class Pair:
    target: Checkpoint
    draft: Checkpoint
    prompts: list[list[int]]

    @classmethod
    def open(cls, folder: Path) -> Pair:
        target = open_checkpoint(folder / "target")
        model = target.architecture.model
        asked = read_prompts(
            folder / "prompts.jsonl",
            tokenizer=load_tokenizer(folder / "target"),
            vocab=model.vocab,
            positions=model.max_positions,
            max_new_tokens=1,
        )
        return cls(target, open_checkpoint(folder / "draft"), [list(request.prompt) for request in asked])

    def requests(self, prompt: int, output: int, count: int, eos: frozenset[int] = frozenset()) -> list[Request]:
        """Prompts of just so many tokens: the pair's own, one after another, cut anew. Outputs end with one of `eos`,
        or have all their tokens."""
        text = [token for tokens in self.prompts for token in tokens]
        text *= -(-prompt * count // len(text))
        cut = [tuple(text[i * prompt : (i + 1) * prompt]) for i in range(count)]
        return [Request(i, str(i), some, output, eos=eos) for i, some in enumerate(cut)]


def question(pair: Pair, folder: Path, machine: str, ram: float, prompt: int, output: int, requests: int) -> Case:
    return api.case(
        machine=machine,
        ram=ram,
        target=folder / "target",
        draft=folder / "draft",
        acceptance=0.7,
        prompt_tokens=prompt,
        output_tokens=output,
        requests=requests,
    )


def planned(
    pair: Pair,
    folder: Path,
    machine: str,
    ram: float,
    prompt: int,
    output: int,
    requests: int = REQUESTS,
    **fix: Any,
) -> Plan:
    """Of so much RAM, or a tenth more until a plan fits."""
    while True:
        try:
            return api.plan(question(pair, folder, machine, ram, prompt, output, requests), fix=fix)
        except InfeasibleError:
            ram *= 1.1


def capped(plan: Plan, share: float) -> Plan:
    """With so large a share of what its caches may need."""
    items = ram_items(plan).values()
    return cap_caches(plan, share * max(some.get("kv", 0.0) + some.get("draft kv", 0.0) for some in items))


def ram_items(plan: Plan) -> dict[str, Items]:
    """By phase."""
    return {phase: memories["ram"] for phase, memories in peak_items(plan.case, plan.decision).items()}


def run(
    pair: Pair,
    plan: Plan,
    prompt: int,
    output: int,
    live: LiveBytes | None = None,
    requests: int = REQUESTS,
    eos: frozenset[int] = frozenset(),
) -> Job:
    devices = Devices("cpu")
    draft = pair.draft if plan.decision.policy.draft is not None else None
    with closing(Reader()) as reader, Engine(worker=worker_for(devices)) as engine:
        job = prepare(plan, pair.target, draft, engine, devices, Link(), reader, Ways(NUMERICS["exact"]))
        if live is not None:
            live.ledger = job.ledger
        job.run(pair.requests(prompt, output, requests, eos))
    return job
