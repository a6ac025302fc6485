"""Everybody inside the same memory limit: our plans, transformers + accelerate, and transformers' assisted generation.

    python -m benchmarks.limited [--limit 1.5GiB] [--ram 1.2GiB] [--pair DIR] [--requests 16,64] [--repeat 3]
        [--numerics exact|fast] [--once NAMES] [--skip NAMES] [--shares 0.5,0.65] [--batches 16,64] [--quick]
        [--out FILE.json]

Makes the pair if it is not there (3 GB on disk, acceptance 0.7), measures the machine, plans. Each competitor runs in a
process of its own in a memory control group of its own (needs the right to make one, usually root's), with the page
cache of its files dropped before. All get the same prompts and threads, decode 32 tokens greedily whatever they are,
and are timed from the start of the first prefill to the last token: reading weights at the start, and accelerate's
rewriting of the experts, are shown apart. Only requested tokens count.

First tokens are compared: ours with and without speculation must be identical under exact numerics, and must differ
from transformers' only where transformers was undecided (see `peers/parity.py`), or nothing is timed and the exit
status is 1. Then the peers are tuned (see `peers/tuning.py`). Then all competitors run in turn, `--repeat` times.
`ours/it` is our plan's speed over the competitor's; `same tokens` the share before the first difference from what
transformers generates without a limit. `disk`: what the disk delivered to our run during its verify passes, and over
all rounds, over what it delivers in the same group for the same reads in the same order with nothing beside them (see
`peers/replay.py`), after each run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.child import Limit, run_child
from benchmarks.peers.contest import ASSISTED, Contest, UnequalError, check_equal, competitors, make_plans
from benchmarks.peers.group import usable_root
from benchmarks.peers.ours import Pair, Work
from benchmarks.peers.parity import Reference
from benchmarks.peers.prompts import read_ids
from benchmarks.peers.report import Row, as_json, table
from benchmarks.peers.surroundings import surroundings
from benchmarks.peers.tuning import BATCHES, EXPERTS, SHARES, best, by_speed, sweep, trial_json, tune_assisted
from specsim.units import parse

ACCEPTANCE, NEW_TOKENS = 0.7, 32
UNLIMITED = "!!! NO MEMORY CONTROL GROUP CAN BE MADE HERE (root can, mostly): NOTHING BELOW IS LIMITED !!!"


def main() -> None:
    options = _options()
    limit = Limit(usable_root(), int(parse(options.limit, "bytes")))
    if limit.root is None:
        _say(UNLIMITED)
    pair = Pair(options.pair)
    if not pair.prompts.exists():
        _say(f"Making {pair.folder}")
        _module("executor.pairs", "make", "-o", str(pair.folder), "--agreement", str(ACCEPTANCE))
    prompt_tokens = len(read_ids(pair.prompts, max(options.requests))[0])
    works = [
        Work(pair, count, prompt_tokens, NEW_TOKENS, ACCEPTANCE, options.threads) for count in sorted(options.requests)
    ]
    with tempfile.TemporaryDirectory(dir=pair.folder.parent, prefix="limited-") as name:
        try:
            result = _contest(works, limit, options, Path(name))
        except UnequalError as error:
            _say(f"Nothing is timed: {error}")
            sys.exit(1)
    if limit.root is None:
        _say(UNLIMITED)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limited", description="All in the same memory limit.")
    parser.add_argument("--limit", default="1.5GiB", help="of the memory control group")
    parser.add_argument("--ram", default="1.2GiB", help="that our plans may use")
    parser.add_argument("--pair", type=Path, default=Path("out/pair3"), help="made by executor.pairs if not there")
    parser.add_argument("--requests", default="16,64", type=lambda text: list(map(int, text.split(","))))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--numerics", choices=("exact", "fast"), default="exact", help="of ours")
    parser.add_argument("--threads", type=int, default=2, help="that compute, for everyone")
    parser.add_argument(
        "--quick", action="store_true", help="the fewest requests, once, with few settings of the peers"
    )
    parser.add_argument("--once", default="", type=_names, help="competitors to run once only, by name, with ; between")
    parser.add_argument("--skip", default="", type=_names, help="and those not to run")
    parser.add_argument("--shares", default=SHARES, type=_numbers, help="of the limit, that accelerate is tried with")
    parser.add_argument("--batches", default=BATCHES, type=_numbers, help="that it is tried with")
    parser.add_argument("--experts", default=EXPERTS, type=lambda text: tuple(text.split(",")), help="likewise")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.repeat = [min(options.requests)], 1
        options.experts, options.shares = EXPERTS[:1], SHARES[2:4]
    return options


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(";"))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) if "." in number else int(number) for number in text.split(","))


def _contest(works: Sequence[Work], limit: Limit, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All phases; what goes into the JSON."""
    machine = folder / "machine.yaml"
    _say("Measuring the machine, planning")
    _module("specsim", "profile", "--quick", "--disk-path", str(works[0].pair.target), "-o", str(machine))
    plans = [make_plans(work, machine, options.ram, folder, _say) for work in works]
    _say("Comparing tokens")
    reference = _reference(works[-1])
    contests = [
        Contest(work, limit, options.numerics, folder, reference, made) for work, made in zip(works, plans, strict=True)
    ]
    tokens = [check_equal(contest, _say) for contest in contests]
    _say("Tuning the peers")
    trials = list(sweep(works[-1], limit, options.experts, options.shares, options.batches, _say))
    helped = None
    if ASSISTED not in options.skip:
        helped = tune_assisted(works[-1], by_speed(trials, 1, NEW_TOKENS), limit, _say)
    rows: list[Row] = []
    for contest, expected in zip(contests, tokens, strict=True):
        peer = best(trials, contest.work.requests, NEW_TOKENS)
        field = [c for c in competitors(contest, expected, peer, helped) if c.row.name not in options.skip]
        for repetition in range(options.repeat):
            for competitor in [c for c in field if not repetition or c.row.name not in options.once]:
                _say(f"{contest.work.requests} requests, {repetition + 1} of {options.repeat}: {competitor.row.name}")
                competitor.run()
        rows += [competitor.row for competitor in field]
    print(table(rows))
    return {
        **surroundings(machine),
        "limit_bytes": limit.bytes if limit.root is not None else None,
        "ram": options.ram,
        "numerics": options.numerics,
        "threads": options.threads,
        "rows": [as_json(row) for row in rows],
        "trials": [trial_json(trial) for trial in trials],
    }


def _reference(work: Work) -> Reference:
    """What transformers generates without a limit."""
    command = [
        *("benchmarks.peers.reference", "--target", str(work.pair.target), "--prompts", str(work.pair.prompts)),
        *("--requests", str(work.requests), "--new-tokens", str(work.new_tokens), "--threads", str(work.threads)),
    ]
    line = run_child(command, None, ()).result("transformers without a limit")
    return Reference(line["tokens"], line["margin"], line["noise"])


def _module(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", *arguments], check=True, stdout=subprocess.DEVNULL)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
