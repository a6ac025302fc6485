"""Peak memory, predicted and measured, for budgets, lengths and caps on caches; and what a cap costs in speed.

    python -m benchmarks.memory [--pair DIR] [--curve] [--machine FILE] [--out FILE.json]

Without --curve: twelve plans of a pair, by default the demo's, for a machine without a GPU, each run with live tensor
bytes counted (see `benchmarks/live.py`). Printed are the largest sums of what was alive at once over what the plan
counts, and what of that was temporary. Speed does not matter, so any machine will do.

With --curve: one plan's generation memory (caches and temporaries: all but weights and rings) made smaller and smaller
by --kv, against useful tokens/s as measured. Wants a machine that does nothing else, and a profile of it (--machine,
of `specsim profile`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.live import LiveBytes
from benchmarks.peers.surroundings import surroundings
from executor import demo
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
from specsim.added import generation_bytes
from specsim.answer import Plan
from specsim.case import Case
from specsim.cli.tables import render
from specsim.errors import InfeasibleError
from specsim.memory import held_positions, peak_items
from specsim.planner.cap import cap_caches
from specsim.units import show

#: shares of the target's weights that RAM may hold, beside what a plan needs at least
RAM: Final = (0.6, 1.2)
#: prompt and output tokens
LENGTHS: Final = ((32, 32), (64, 96), (160, 48))
#: gamma, and the share of the worst case that caches may hold
HOW: Final = ((0, 1.0), (3, 0.4))
REQUESTS: Final = 12
#: of the curve: shares of the worst case, and runs of each
SHARES: Final = (1.0, 0.8, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2)
REPEAT: Final = 3


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one run: what it was, and its peaks in bytes. `ratio` is measured over planned."""

    ram: int
    prompt: int
    output: int
    gamma: int
    kv_share: float
    strategy: str
    in_flight: int
    phase: str
    planned: int
    measured: int
    temporary: int
    planned_temporary: int
    preemptions: int

    @property
    def ratio(self) -> float:
        return self.measured / self.planned


@dataclass(frozen=True, slots=True)
class Point:
    """Of the curve: `tokens_per_s` are the median of all runs; `generation` bytes are planned, of the fullest phase."""

    kv_share: float
    kv_positions: int
    generation: int
    tokens_per_s: float
    spread: tuple[float, ...]
    preemptions: int


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

    def requests(self, prompt: int, output: int, count: int) -> list[Request]:
        """Prompts of just so many tokens: the pair's own, one after another, cut anew."""
        text = [token for tokens in self.prompts for token in tokens]
        text *= -(-prompt * count // len(text))
        return [Request(i, str(i), tuple(text[i * prompt : (i + 1) * prompt]), output) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory, planned and measured.")
    parser.add_argument("--pair", type=Path, default=demo.directory(), help="target/, draft/ and prompts.jsonl")
    parser.add_argument("--machine", default="desktop-cpu", help="a machine's profile or file")
    parser.add_argument("--curve", action="store_true", help="speed against generation memory")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    pair = Pair.open(options.pair)
    rows: list[Peak] | list[Point]
    if options.curve:
        rows = list(curve(pair, options.pair, options.machine))
        print(_curve_table(rows))
    else:
        rows = list(peaks(pair, options.pair, options.machine))
        print(_peak_table(rows))
    if options.out is not None:
        each = [asdict(row) | ({"ratio": row.ratio} if isinstance(row, Peak) else {}) for row in rows]
        text = json.dumps({"pair": str(options.pair), "surroundings": surroundings(), "rows": each}, indent=2)
        options.out.write_text(text + "\n")


def question(pair: Pair, folder: Path, machine: str, ram: float, prompt: int, output: int) -> Case:
    return api.case(
        machine=machine,
        ram=ram,
        target=folder / "target",
        draft=folder / "draft",
        acceptance=0.7,
        prompt_tokens=prompt,
        output_tokens=output,
        requests=REQUESTS,
    )


def peaks(pair: Pair, folder: Path, machine: str) -> Iterator[Peak]:
    """All twelve, as they come."""
    weights = pair.target.architecture.model.weight_bytes + pair.draft.architecture.model.weight_bytes
    for share in RAM:
        for prompt, output in LENGTHS:
            for gamma, kv in HOW:
                plan = _plan(pair, folder, machine, share * weights, prompt, output, gamma)
                plan = plan if kv == 1 else capped(plan, kv)
                run(pair, plan, prompt, output)  # finds by trial which products are exact, once in a process
                found = measure(pair, plan, prompt, output, kv)
                print(f"{found.planned} planned, {found.measured} measured: {found.ratio:.3f}", file=sys.stderr)
                yield found


def _plan(pair: Pair, folder: Path, machine: str, ram: float, prompt: int, output: int, gamma: int) -> Plan:
    """Of so much RAM, or a tenth more until a plan fits."""
    while True:
        try:
            return api.plan(question(pair, folder, machine, ram, prompt, output), fix={"gamma": gamma})
        except InfeasibleError:
            ram *= 1.1


def curve(pair: Pair, folder: Path, machine: str) -> Iterator[Point]:
    """Speed with ever less room for caches, all in one process, each share `REPEAT` times in turn."""
    prompt, output = LENGTHS[1]
    weights = pair.target.architecture.model.weight_bytes + pair.draft.architecture.model.weight_bytes
    whole = _plan(pair, folder, machine, RAM[0] * weights, prompt, output, gamma=3)
    plans = {share: whole if share == 1 else capped(whole, share) for share in SHARES}
    rates: dict[float, list[float]] = {share: [] for share in SHARES}
    preemptions = {}
    for number in range(REPEAT + 1):
        for share, plan in plans.items():
            job = run(pair, plan, prompt, output)
            preemptions[share] = job.batches.preemptions
            if number:  # the first is for the library's trials
                rates[share].append(job.batches.useful_tokens / sum(job.seconds.values()))
    for share, plan in plans.items():
        phases = [memories["ram"] for memories in peak_items(plan.case, plan.decision).values()]
        generation = int(max(generation_bytes(items) for items in phases))
        positions = int(held_positions(plan.case.workload, plan.decision.policy))
        found = sorted(rates[share])
        yield Point(share, positions, generation, statistics.median(found), tuple(found), preemptions[share])


def capped(plan: Plan, share: float) -> Plan:
    """With so large a share of what its caches may need."""
    items = [memories["ram"] for memories in peak_items(plan.case, plan.decision).values()]
    return cap_caches(plan, share * max(some.get("kv", 0.0) + some.get("draft kv", 0.0) for some in items))


def measure(pair: Pair, plan: Plan, prompt: int, output: int, kv: float) -> Peak:
    live = LiveBytes()
    with live.watching():
        job = run(pair, plan, prompt, output, live)
    planned = {phase: memories["ram"] for phase, memories in peak_items(plan.case, plan.decision).items()}
    phase = max(planned, key=lambda phase: sum(planned[phase].values()))
    at = max(live.peaks, key=lambda phase: live.peaks[phase])
    caches = ("kv", "draft kv")
    temporary = generation_bytes({item: size for item, size in planned[phase].items() if item not in caches})
    policy = plan.decision.policy
    return Peak(
        ram=int(plan.case.machine.budgets()["ram"]),
        prompt=prompt,
        output=output,
        gamma=policy.gamma,
        kv_share=kv,
        strategy=plan.decision.strategy,
        in_flight=policy.in_flight,
        phase=f"{phase}/{at}",
        planned=int(sum(planned[phase].values())),
        measured=live.peaks[at][0],
        temporary=live.peaks[at][1],
        planned_temporary=int(temporary),
        preemptions=job.batches.preemptions,
    )


def run(pair: Pair, plan: Plan, prompt: int, output: int, live: LiveBytes | None = None) -> Job:
    devices = Devices("cpu")
    draft = pair.draft if plan.decision.policy.draft is not None else None
    with closing(Reader()) as reader, Engine(worker=worker_for(devices)) as engine:
        job = prepare(plan, pair.target, draft, engine, devices, Link(), reader, Ways(NUMERICS["exact"]))
        if live is not None:
            live.ledger = job.ledger
        job.run(pair.requests(prompt, output, REQUESTS))
    return job


def _peak_table(rows: list[Peak]) -> str:
    head = ("ram", "prompt", "output", "plan", "kv", "phase", "planned", "measured", "ratio", "temporary", "planned")
    return render(
        (*head, "preempted"),
        [
            (
                show(row.ram, "bytes"),
                str(row.prompt),
                str(row.output),
                f"{row.strategy}, gamma {row.gamma}, {row.in_flight}",
                f"{row.kv_share:.0%}",
                row.phase,
                show(row.planned, "bytes"),
                show(row.measured, "bytes"),
                f"{row.ratio:.3f}",
                show(row.temporary, "bytes"),
                show(row.planned_temporary, "bytes"),
                str(row.preemptions),
            )
            for row in rows
        ],
    )


def _curve_table(rows: list[Point]) -> str:
    most = rows[0]
    return render(
        ("kv", "generation", "of all", "tokens/s", "of all", "preempted"),
        [
            (
                f"{row.kv_share:.0%}",
                show(row.generation, "bytes"),
                f"{row.generation / most.generation:.0%}",
                f"{row.tokens_per_s:.1f}",
                f"{row.tokens_per_s / most.tokens_per_s:.0%}",
                str(row.preemptions),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
