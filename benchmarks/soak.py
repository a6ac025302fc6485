"""Mixed work with faults for as long as is asked for, every output compared; memory and file descriptors watched.

    python -m benchmarks.soak [--minutes 30] [--seed 0] [--kinds NAMES] [--out FILE.json]

Runs of the demo pair (see `demo_runs.py`) in random order: left alone, killed with signal 9, interrupted, terminated,
on a disk that is full at a random size, from a slow disk, resumed with another seed (which must be refused). What was
cut off is resumed until it ends, and compared with a run that was left alone. A third of the runs take place in one
process that lives as long as the soak: what it holds after each is fitted by a line over time, after the first
tenth. The exit status is 1 where an output differs or an ending is not one of those that the fault may have.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

import torch

from benchmarks.demo_runs import KINDS, Found, Kind
from benchmarks.forks import fork, signal_after, start, wait
from benchmarks.kills import alone
from executor.process import resident_bytes
from specsim.cli.main import entry
from specsim.units import MiB

#: bytes that a file may have at most on the full disk
FULL: Final = (1_000, 60_000)
SLOW: Final = ("--throttle", "disk=20MB/s")
#: exit statuses that each fault may lead to, beside 0: of a run that had ended before it came
ENDINGS: Final = {
    "left alone": (),
    "slow disk": (),
    "kill -9": (-signal.SIGKILL,),
    "SIGINT": (130,),
    "SIGTERM": (143, -signal.SIGTERM),
    "full disk": (2,),
    "another seed": (-signal.SIGKILL, 2),  # cut off first, so that there is something to resume
}
#: moments that a line is fitted to
_FEWEST: Final = 3


@dataclass(slots=True)
class Watch:
    """What a process held at moments in seconds: bytes, and file descriptors."""

    moments: list[tuple[float, int, int]] = field(default_factory=list)

    def slopes(self) -> dict[str, float | int | None]:
        """Of the line through the moments after the first tenth, and what was held first and last of these."""
        begin = self.moments[-1][0] * 0.1 if self.moments else 0.0
        settled = [moment for moment in self.moments if moment[0] >= begin]
        if len(settled) < _FEWEST:
            return {"moments": len(settled)}
        minutes = [at / 60 for at, _, _ in settled]
        held, files = [size / MiB for _, size, _ in settled], [count for _, _, count in settled]
        return {
            "moments": len(settled),
            "rss_mib_first": held[0],
            "rss_mib_last": held[-1],
            "rss_mib_most": max(held),
            "rss_mib_per_minute": linear_regression(minutes, held).slope,
            "files_first": files[0],
            "files_last": files[-1],
            "files_per_minute": linear_regression(minutes, files).slope,
        }


@dataclass(slots=True)
class Soak:
    """What a soak has done so far."""

    folder: Path
    rng: random.Random
    inhabitant: Connection
    began: float = field(default_factory=time.monotonic)
    found: Found = field(default_factory=Found)
    operations: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    lasting: Watch = field(default_factory=Watch)
    driver: Watch = field(default_factory=Watch)

    def operate(self, kind: Kind, cpu_seconds: float, what: str) -> None:
        """One run from its beginning to its end, with whatever befalls it in between."""
        self.operations[what] += 1
        out, log = self.folder / "out", self.folder / "log"
        log.unlink(missing_ok=True)
        command = [*kind.command(self.folder), "--resume", str(out)]
        while True:
            if what != "left alone" and self.rng.random() < 0.7:
                status = self._befall(what, command, cpu_seconds, log)
            elif self.rng.random() < 0.5:
                self.inhabitant.send(command)
                status, held, files = self.inhabitant.recv()
                self.lasting.moments.append((time.monotonic() - self.began, held, files))
            else:
                status = wait(start(command, log))
            if status == 0:
                break
            if status not in ENDINGS[what]:
                self.unexpected.append(f"{what}, {kind.name}: status {status}: {_tail(log)}")
                shutil.rmtree(out, ignore_errors=True)
                return
            self.faults[what] += 1
        self.found.add(out, self.folder / kind.name)
        shutil.rmtree(out)
        held = time.monotonic() - self.began, resident_bytes() or 0, len(os.listdir("/proc/self/fd"))
        self.driver.moments.append(held)

    def _befall(self, what: str, command: list[str], cpu_seconds: float, log: Path) -> int | None:
        """Begin or resume a run, and let something happen to it; its exit status."""
        size = self.rng.randint(*FULL)
        prepare: Callable[[], None] = lambda: None  # noqa: E731
        if what == "full disk":
            prepare = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
        if what == "slow disk":
            command = [*command, *SLOW]
        if what == "another seed" and (self.folder / "out" / "journal.jsonl").exists():
            command = [*command, "--temperature", "0.5", "--seed", "8"]
        child = start(command, log, prepare)
        number = {"kill -9": signal.SIGKILL, "SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(what)
        if number is not None or what == "another seed":
            signal_after(child, self.rng.uniform(0, 1.1 * cpu_seconds), number or signal.SIGKILL)
        return wait(child)


def _inhabit(requests: Connection) -> None:
    """Run what is asked for, one after the other, in this process; tell what it holds after each."""
    while True:
        status = entry(requests.recv())
        requests.send((status, resident_bytes() or 0, len(os.listdir("/proc/self/fd"))))


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Mixed work with faults.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(kind.name for kind in KINDS), help="of runs, by name")
    parser.add_argument("--out", type=Path, help="write JSON here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="specsim-soak-") as name:
        os.environ["SPECSIM_CACHE"] = name  # what runs remember stays here
        kinds = [kind for kind in KINDS if kind.name in options.kinds.split(",")]
        result = {"seed": options.seed} | _soak(Path(name), kinds, options.minutes, random.Random(options.seed))
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(bool(result["mismatches"] or result["unexpected"]))


def _soak(folder: Path, kinds: list[Kind], minutes: float, rng: random.Random) -> dict[str, Any]:
    here, there = Pipe()
    inhabitant = fork(lambda: _inhabit(there), folder / "inhabitant.log")
    cpu_seconds = {kind.name: alone(folder, kind) for kind in kinds}
    soak = Soak(folder, rng, here)
    try:
        while time.monotonic() - soak.began < 60 * minutes:
            kind = rng.choice(kinds)
            soak.operate(kind, cpu_seconds[kind.name], rng.choice(list(ENDINGS)))
            so_far = f"{(time.monotonic() - soak.began) / 60:.1f} min, {soak.operations.total()} runs"
            print(
                f"{so_far}, {soak.faults.total()} faults, {soak.found.mismatches} mismatches",
                file=sys.stderr,
                flush=True,
            )
    finally:
        os.kill(inhabitant, signal.SIGKILL)
        wait(inhabitant)
    found = soak.found
    return {
        "minutes": (time.monotonic() - soak.began) / 60,
        "operations": soak.operations.total(),
        "operations_by_kind": dict(soak.operations),
        "faults": soak.faults.total(),
        "faults_by_kind": dict(soak.faults),
        "requests": found.requests,
        "mismatches": found.mismatches,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "differing_tokens": found.differing_tokens,
        "differing_lines": found.differing_lines,
        "unexpected": soak.unexpected,
        "lasting_process": soak.lasting.slopes(),
        "driver": soak.driver.slopes(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
