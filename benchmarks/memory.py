"""Peak memory, predicted and measured, for budgets, lengths and caps on caches; and what a cap costs in speed.

    python -m benchmarks.memory [--pair DIR] [--curve] [--machine FILE] [--out FILE.json]

Without --curve: twelve plans of a pair, by default the demo's, for a machine without a GPU, each run with live tensor
bytes counted (see `benchmarks/live.py`). Printed are the largest sums of what was alive at once over what the plan
counts, and what of that was temporary. Speed does not matter, so any machine will do.

With --curve: answers that may be long and most often are not, planned for with plenty of memory; and the same plan
with less and less memory to generate with (caches and temporaries: all but weights and rings): shorter sweeps and
chunks, then caches that hold less than all answers in flight might need (--kv). Beside what each takes, as planned and
as measured, stand useful tokens/s, and how often a request had to wait for room. Wants a machine that does nothing
else, and a profile of it (--machine, of `specsim profile`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.live import LiveBytes
from benchmarks.memory_curve import Point, curve, curve_table
from benchmarks.memory_runs import Pair, capped, planned, ram_items, run
from benchmarks.peers.surroundings import surroundings
from executor import demo
from specsim.added import generation_bytes
from specsim.answer import Plan
from specsim.cli.tables import render
from specsim.units import show

#: shares of the target's weights that RAM may hold, beside what a plan needs at least
RAM: Final = (0.6, 1.2)
#: prompt and output tokens
LENGTHS: Final = ((32, 32), (64, 96), (160, 48))
#: gamma, and the share of the worst case that caches may hold
HOW: Final = ((0, 1.0), (3, 0.4))


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory, planned and measured.")
    parser.add_argument("--pair", type=Path, default=demo.directory(), help="target/, draft/ and prompts.jsonl")
    parser.add_argument("--machine", default="desktop-cpu", help="a machine's profile or file")
    parser.add_argument("--curve", action="store_true", help="speed against generation memory")
    parser.add_argument("--out", type=Path, help="add it to this JSON file")
    options = parser.parse_args()
    pair = Pair.open(options.pair)
    rows: list[Peak] | list[Point]
    if options.curve:
        rows = list(curve(pair, options.pair, options.machine))
        print(curve_table(rows))
    else:
        rows = list(peaks(pair, options.pair, options.machine))
        print(peak_table(rows))
    if options.out is not None:
        each = [asdict(row) | ({"ratio": row.ratio} if isinstance(row, Peak) else {}) for row in rows]
        found = {"pair": options.pair.resolve().name, **surroundings(), "rows": each}
        add(options.out, "curve" if options.curve else "peaks", found)


def add(path: Path, kind: str, found: dict[str, Any]) -> None:
    """To what the file has of other pairs, and of the other kind."""
    results: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.exists() else {}
    others = [other for other in results.get(kind, []) if other["pair"] != found["pair"]]
    path.write_text(json.dumps(results | {kind: [*others, found]}, indent=2) + "\n")


def peaks(pair: Pair, folder: Path, machine: str) -> Iterator[Peak]:
    """All twelve, as they come."""
    weights = pair.target.architecture.model.weight_bytes + pair.draft.architecture.model.weight_bytes
    for share in RAM:
        for prompt, output in LENGTHS:
            for gamma, kv in HOW:
                plan = planned(pair, folder, machine, share * weights, prompt, output, gamma=gamma)
                plan = plan if kv == 1 else capped(plan, kv)
                run(pair, plan, prompt, output)  # finds by trial which products are exact, once in a process
                found = measure(pair, plan, prompt, output, kv)
                print(f"{found.planned} planned, {found.measured} measured: {found.ratio:.3f}", file=sys.stderr)
                yield found


def measure(pair: Pair, plan: Plan, prompt: int, output: int, kv: float) -> Peak:
    live = LiveBytes()
    with live.watching():
        job = run(pair, plan, prompt, output, live)
    planned = ram_items(plan)
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


def peak_table(rows: list[Peak]) -> str:
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


if __name__ == "__main__":
    main()
