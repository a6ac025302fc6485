"""Our own runs: plans as `specsim plan` finds them, executed by `specsim run`, and how fast the disk was meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.child import Limit, Outcome, run_child
from benchmarks.peers.disk import Rates, rates

METRICS, TRACE = "metrics.json", "trace.json"


@dataclass(frozen=True, slots=True)
class Pair:
    """A generated pair: `folder`/target, draft and prompts.jsonl."""

    folder: Path

    @property
    def target(self) -> Path:
        return self.folder / "target"

    @property
    def draft(self) -> Path:
        return self.folder / "draft"

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts.jsonl"


@dataclass(frozen=True, slots=True)
class Work:
    """What all competitors are asked to do."""

    pair: Pair
    requests: int
    prompt_tokens: int
    new_tokens: int
    acceptance: float
    threads: int


@dataclass(frozen=True, slots=True)
class Variant:
    """One of our own competitors: how its plan differs from the one that is found, whether it runs inside the group,
    whether it is planned for all of the machine's RAM instead of the budget, and whether its reads are replayed."""

    name: str
    options: tuple[str, ...] = ()
    limited: bool = True
    everything: bool = False
    replayed: bool = False


VARIANTS = (
    Variant("ours", replayed=True),
    Variant("ours, gamma 0", ("--fix", "gamma=0")),
    Variant("ours, merged", ("--strategy", "merged")),
    Variant("ours, interleaved", ("--strategy", "interleaved")),
    Variant("ours, no limit", limited=False),
    Variant("ours, resident, no limit", limited=False, everything=True),
)


#: of which the tokens are compared before anything is timed
SPECULATIVE, PLAIN = VARIANTS[:2]


@dataclass(frozen=True, slots=True)
class OurRun:
    """A finished run: metrics.json, the tokens by request, and how fast the disk delivered; None where nothing was
    read in a verify pass."""

    metrics: dict[str, Any]
    tokens: list[list[int]]
    rates: Rates | None


def make_plan(variant: Variant, work: Work, machine: Path, ram: str, out: Path) -> str | None:
    """Write the variant's plan to `out`. The answer is None, or the line that says why there is no such plan."""
    command = [
        *("plan", "--machine", str(machine), "--target", str(work.pair.target), "--draft", str(work.pair.draft)),
        *("--acceptance", str(work.acceptance), "--requests", str(work.requests)),
        *("--prompt-tokens", str(work.prompt_tokens), "--output-tokens", str(work.new_tokens)),
        *(() if variant.everything else ("--ram", ram)),
        *variant.options,
        *("-o", str(out)),
    ]
    done = subprocess.run([sys.executable, "-m", "specsim", *command], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]


def run_plan(
    plan: Path, variant: Variant, work: Work, limit: Limit, numerics: str, out: Path
) -> tuple[Outcome, OurRun | None]:
    """Execute a plan in a new process; None beside its outcome where it did not end well."""
    shutil.rmtree(out, ignore_errors=True)
    command = [
        *("specsim", "run", str(plan), "--target", str(work.pair.target)),
        *("--draft", str(work.pair.draft), "--prompts", str(work.pair.prompts)),
        *("--limit", str(work.requests), "--ignore-eos", "--numerics", numerics, "--threads", str(work.threads)),
        *("-o", str(out), "--format", "json"),
    ]
    outcome = run_child(command, limit if variant.limited else None, (work.pair.folder,))
    return outcome, _finished(out, work.pair.prompts) if outcome.status == 0 else None


def _finished(out: Path, prompts: Path) -> OurRun:
    metrics = json.loads((out / METRICS).read_text(encoding="utf-8"))
    outputs = {line["id"]: line["output_ids"] for line in _lines(out / "outputs.jsonl")}
    trace = json.loads((out / TRACE).read_text(encoding="utf-8"))
    tokens = [outputs[line["id"]] for line in _lines(prompts) if line["id"] in outputs]
    return OurRun(metrics, tokens, rates(trace) if metrics["bytes_moved"].get("disk") else None)


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
