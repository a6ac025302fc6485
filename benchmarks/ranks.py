"""One run on 1, 2 and 4 ranks of this machine, each with a thread of its own: predicted and measured.

    python -m benchmarks.ranks [--pair DIR] [--ranks 1,2,4] [--requests 16] [--ram 4GiB] [--repeat 3] [--quick]
        [--out FILE.json]

Makes the pair if it is not there (0.6 GB on disk, acceptance 0.7). Measures one core of the machine as `specsim
profile` does, and how fast two ranks exchange rows; plans for so many devices of one core, which share the cores that
there are: where these are fewer than the ranks, so does the prediction. Then `torchrun -m specsim run` executes the
plans in turn, `--repeat` times. All ranks must give the same tokens, or the exit status is 1. `as they were`: the
prediction for the rounds as they turned out, with the acceptance and the lengths that were measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import yaml

from benchmarks.peers.ours import METRICS, Pair
from benchmarks.peers.prompts import read_ids
from benchmarks.peers.surroundings import surroundings
from specsim.cli.tables import render
from specsim.facts import write
from specsim.schema import FACTS

ACCEPTANCE: Final = 0.7
NEW_TOKENS: Final = 32
#: of the pair: eight layers of 64 MB
SIZES: Final = ("--layers", "8", "--ffn", "2560", "--experts", "4", "--draft-layers", "1")


@dataclass(slots=True)
class Row:
    """A number of ranks: what its plan says, and what runs of it gave."""

    ranks: int
    plan: Path
    predicted: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def measured(self) -> float:
        """Useful tokens per second, the median of the runs."""
        return median(m["tokens_per_second"] for m in self.metrics)

    @property
    def replayed(self) -> float:
        """As predicted for the rounds as they were."""
        return median(m["useful_tokens"] / m["replayed_s"] for m in self.metrics)


def main() -> None:
    options = _options()
    pair = Pair(options.pair)
    if not pair.prompts.exists():
        _say(f"Making {pair.folder}")
        _module("executor.pairs", "make", "-o", str(pair.folder), "--agreement", str(ACCEPTANCE), *SIZES)
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder = Path(name)
        one = _measure(pair, folder)
        rows = [_plan(ranks, one, pair, options, folder) for ranks in options.ranks]
        tokens = set()
        for repetition in range(options.repeat):
            for row in rows:
                _say(f"{row.ranks} ranks, {repetition + 1} of {options.repeat}")
                tokens.add(_run(row, pair, options, folder))
        print(_table(rows))
        if len(tokens) > 1:
            _say("The tokens differ")
            sys.exit(1)
        if options.out is not None:
            result = {
                **surroundings(one),
                "requests": options.requests,
                "ram": options.ram,
                "rows": list(map(_json, rows)),
            }
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description="1, 2 and 4 ranks on one machine.")
    parser.add_argument("--pair", type=Path, default=Path("out/pair-ranks"), help="made by executor.pairs if not there")
    parser.add_argument("--ranks", default="1,2,4", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--ram", default="4GiB", help="that each rank's plan may use")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few requests, once")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.repeat = 4, 1
    return options


def _measure(pair: Pair, folder: Path) -> Path:
    """One core of this machine, and the way between two ranks on it."""
    _say("Measuring one core")
    machine = folder / "one.yaml"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        _module("specsim", "profile", "--quick", "--disk-path", str(pair.target), "-o", str(machine))
    finally:
        os.sched_setaffinity(0, cores)
    (folder / "peer.json").write_text(_torchrun(2, "benchmarks.peers.peer"), encoding="utf-8")
    return machine


def _machine(ranks: int, one: Path, folder: Path) -> Path:
    """So many devices of that core, on the cores that there are."""
    if ranks == 1:
        return one
    described = yaml.safe_load(one.read_text(encoding="utf-8"))
    peer = json.loads((folder / "peer.json").read_text(encoding="utf-8"))
    facts = {"devices": ranks, "node_devices": ranks, "node_cores": len(os.sched_getaffinity(0))}
    facts |= {"peer": peer["bytes_per_s"], "peer_latency": peer["latency_s"]}
    described.setdefault("sources", {})["ranks"] = {
        "kind": "measured",
        "document": "benchmarks.peers.peer, 50 each way",
    }
    described.setdefault("facts", {}).update(
        {name: [write(float(value), FACTS["machine"][name]), "ranks"] for name, value in facts.items()}
    )
    path = folder / f"machine{ranks}.yaml"
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    return path


def _plan(ranks: int, one: Path, pair: Pair, options: argparse.Namespace, folder: Path) -> Row:
    _say(f"Planning for {ranks}")
    row = Row(ranks, folder / f"plan{ranks}.yaml")
    asked = ["--target", str(pair.target), "--draft", str(pair.draft), "--acceptance", str(ACCEPTANCE)]
    asked += ["--requests", str(options.requests), "--output-tokens", str(NEW_TOKENS), "--ram", options.ram]
    asked += ["--prompt-tokens", str(len(read_ids(pair.prompts, 1)[0])), "--fix", f"stages={ranks}"]
    machine = _machine(ranks, one, folder)
    answer = _module("specsim", "plan", "--machine", str(machine), *asked, "-o", str(row.plan), "--format", "json")
    row.predicted = json.loads(answer)["predicted"]["tokens_per_second"]
    return row


def _run(row: Row, pair: Pair, options: argparse.Namespace, folder: Path) -> frozenset[str]:
    """One run; its outputs, a line each."""
    out = folder / f"out{row.ranks}-{len(row.metrics)}"
    asked = ["--target", str(pair.target), "--draft", str(pair.draft), "--prompts", str(pair.prompts), "-o", str(out)]
    asked += ["--limit", str(options.requests), "--max-new-tokens", str(NEW_TOKENS), "--ignore-eos", "--threads", "1"]
    _torchrun(row.ranks, "specsim", "run", str(row.plan), *asked)
    row.metrics.append(json.loads((out / METRICS).read_text(encoding="utf-8")))
    return frozenset((out / "outputs.jsonl").read_text(encoding="utf-8").splitlines())


def _table(rows: list[Row]) -> str:
    headers = ("ranks", "schedule", "predicted", "as they were", "measured", "measured/predicted", "over the first")
    first = rows[0].measured
    return render(headers, [[*_said(row), row.measured / row.predicted, row.measured / first] for row in rows])


def _said(row: Row) -> list[Any]:
    policy = yaml.safe_load(row.plan.read_text(encoding="utf-8"))
    schedule = f"{policy['strategy']}, {policy['policy']['batches']} x {policy['policy']['batch']}"
    schedule += f", gamma {policy['policy']['gamma']}"
    return [row.ranks, schedule, row.predicted, row.replayed, row.measured]


def _json(row: Row) -> dict[str, Any]:
    ranks, schedule, predicted, replayed, measured = _said(row)
    runs = [m["tokens_per_second"] for m in row.metrics]
    return {
        "ranks": ranks,
        "schedule": schedule,
        "predicted": predicted,
        "as_they_were": replayed,
        "measured": measured,
        "runs": runs,
    }


def _torchrun(ranks: int, *arguments: str) -> str:
    return _module("torch.distributed.run", "--nproc-per-node", str(ranks), "-m", *arguments)


def _module(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
