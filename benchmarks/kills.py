"""Runs of the demo pair that are killed at random moments and resumed, again and again, and what that spoils.

    python -m benchmarks.kills [--cycles 200] [--seed 0] [--kinds NAMES] [--out FILE.json]

A cycle is a `kill -9` and the resume after it. Four kinds of runs take turns, greedy and sampled, with a model and with
n-grams as draft: each is begun with `specsim run --resume DIR`, killed at a moment that is uniform over the CPU time
that it takes undisturbed (loading, prefill, decoding, writing), resumed, killed again, until it ends by itself. After a
quarter of the kills the ends of its files are torn off as well, as when the power goes: up to a hundred bytes each.
Every ended run is compared with one that was left alone: requests lost, there twice, tokens that differ. The exit
status is 1 where there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.demo_runs import KINDS, Found, Kind, stage
from benchmarks.forks import fork, signal_after, start, wait

#: of the kills, those after which files are torn too, and bytes that go at most
TORN, TORN_BYTES = 0.25, 100


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description="Kill, resume, compare.")
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(kind.name for kind in KINDS), help="of runs, by name")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="specsim-kills-") as name:
        os.environ["SPECSIM_CACHE"] = name  # what runs remember stays here
        kinds = [kind for kind in KINDS if kind.name in options.kinds.split(",")]
        result = _kill(Path(name), kinds, options.cycles, random.Random(options.seed))
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps({"seed": options.seed, **result}, indent=2) + "\n", encoding="utf-8")
    sys.exit(result["mismatches"] > 0)


def _kill(folder: Path, kinds: list[Kind], cycles: int, rng: random.Random) -> dict[str, Any]:
    began = time.monotonic()
    alone_cpu_s = {kind.name: alone(folder, kind) for kind in kinds}
    found, stages, torn, jobs = Found(), Counter[str](), 0, 0
    while sum(stages.values()) < cycles:
        kind = kinds[jobs % len(kinds)]
        out = folder / "out"
        while not _ends(folder, kind, out, rng.uniform(0, 1.1 * alone_cpu_s[kind.name])):
            stages[stage(out)] += 1
            if rng.random() < TORN:
                torn += tear(out, rng)
        found.add(out, folder / kind.name)
        shutil.rmtree(out)
        jobs += 1
        print(f"{sum(stages.values())} of {cycles} cycles, {found.mismatches} mismatches", file=sys.stderr, flush=True)
    return {
        "cycles": sum(stages.values()),
        "runs": jobs,
        "requests": found.requests,
        "killed": dict(stages),
        "torn_files": torn,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "differing_tokens": found.differing_tokens,
        "differing_lines": found.differing_lines,
        "mismatches": found.mismatches,
        "alone_cpu_s": alone_cpu_s,
        "seconds": time.monotonic() - began,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def alone(folder: Path, kind: Kind) -> float:
    """Plan, and run undisturbed into `folder`/NAME; the CPU seconds of a second time, when nothing has to be tried."""
    log = folder / "log"
    if wait(fork(lambda: kind.write_plan(folder), log)) != 0:
        raise RuntimeError(f"{kind.name}: {log.read_text()}")
    for out in (folder / "first", folder / kind.name):
        before = os.times()
        if wait(start([*kind.command(folder), "-o", str(out)], log)) != 0:
            raise RuntimeError(f"{kind.name}: {log.read_text()}")
        after = os.times()
    shutil.rmtree(folder / "first")
    return after.children_user + after.children_system - before.children_user - before.children_system


def _ends(folder: Path, kind: Kind, out: Path, cpu_seconds: float) -> bool:
    """Begin or resume a run, and kill it after it has computed for so long; whether it ended before."""
    log = folder / "log"
    child = start([*kind.command(folder), "--resume", str(out)], log)
    signal_after(child, cpu_seconds)
    status = wait(child)
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{kind.name} ended with status {status}: {log.read_text()}")
    return status == 0


def tear(out: Path, rng: random.Random) -> int:
    """Cut off the ends of the journal and the outputs, as if not on the disk yet; how many files that were."""
    files = [file for file in (out / "journal.jsonl", out / "outputs.jsonl") if file.exists()]
    for file in files:
        os.truncate(file, max(0, file.stat().st_size - rng.randint(1, TORN_BYTES)))
    return len(files)


if __name__ == "__main__":
    main()
