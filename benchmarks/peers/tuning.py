"""Finding the settings at which the transformers peers are fastest inside the limit.

How much of the limit accelerate may keep weights in, the batch, and the implementation of the experts are tried in all
combinations, each batch with one group of requests and a few tokens. A group of a batch costs the same whichever
requests are in it, so its prefill and its steps tell what all requests cost. What is killed there is recorded.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.child import Limit, Outcome, run_child
from benchmarks.peers.ours import Work

SWEEP_TOKENS: Final = 4
EXPERTS: Final = ("eager", "grouped_mm")
BATCHES: Final = (1, 4, 8, 16, 32, 64)
#: of the limit, for accelerate's max_memory
SHARES: Final = (0.35, 0.5, 0.65, 0.75, 0.85)
#: tokens that assisted generation proposes per pass; 0: its own schedule
CANDIDATES: Final = (5, 0)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a transformers peer is started with; `ram_bytes` is accelerate's max_memory for the CPU."""

    experts: str
    ram_bytes: int


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting at one batch: seconds of a group's prefill and of each later step; both None where it was killed."""

    setting: Setting
    batch: int
    prefill_s: float | None
    step_s: float | None

    def seconds(self, requests: int, new_tokens: int) -> float:
        """What all requests take, group after group; inf where it was killed."""
        if self.prefill_s is None or self.step_s is None:
            return math.inf
        return math.ceil(requests / self.batch) * (self.prefill_s + (new_tokens - 1) * self.step_s)


def sweep(
    work: Work, limit: Limit, experts: Sequence[str], shares: Sequence[float], batches: Sequence[int], say: Say
) -> Iterator[Trial]:
    """All trials, with batches up to all requests."""
    for name in experts:
        for share in shares:
            setting = Setting(name, int(share * limit.bytes))
            sizes = [batch for batch in batches if batch <= work.requests]
            tries = ",".join(map(str, sizes))
            outcome = accelerate(work, setting, limit, "--new-tokens", str(SWEEP_TOKENS), "--sweep", tries)
            lines = {line["batch"]: line for line in outcome.lines}
            if outcome.status != 0 and not outcome.killed:
                outcome.result(f"accelerate with {setting}")  # raises: not a matter of memory
            for batch in sizes:
                line = lines.get(batch, {})
                trial = Trial(setting, batch, line.get("prefill_s"), line.get("step_s"))
                yield trial
                say(f"  {name}, {share:.0%} for weights, batch {batch}: {_speed(trial, work)}")
                if not line:
                    break  # larger ones need more


def best(trials: Sequence[Trial], requests: int, new_tokens: int) -> Trial | None:
    """The fastest trial for so many requests; None where none survived."""
    fitting = [trial for trial in trials if trial.batch <= requests and trial.prefill_s is not None]
    return min(fitting, key=lambda trial: trial.seconds(requests, new_tokens), default=None)


def by_speed(trials: Sequence[Trial], batch: int, new_tokens: int) -> list[Setting]:
    """The settings that survived at this batch, fastest first."""
    fitting = [trial for trial in trials if trial.batch == batch and trial.prefill_s is not None]
    return [trial.setting for trial in sorted(fitting, key=lambda trial: trial.seconds(batch, new_tokens))]


def trial_json(trial: Trial) -> dict[str, Any]:
    """The trial flat, as JSON has it."""
    seconds = {"prefill_s": trial.prefill_s, "step_s": trial.step_s, "killed": trial.prefill_s is None}
    return {**asdict(trial.setting), "batch": trial.batch, **seconds}


def accelerate(work: Work, setting: Setting, limit: Limit, *options: str) -> Outcome:
    return _run("accelerate_offload", work, setting, limit, options)


def assisted(work: Work, setting: Setting, candidates: int, limit: Limit) -> Outcome:
    draft = ("--draft", str(work.pair.draft), "--candidates", str(candidates))
    tokens = ("--new-tokens", str(work.new_tokens), "--requests", str(work.requests))
    return _run("assisted", work, setting, limit, (*draft, *tokens))


def tune_assisted(work: Work, settings: Sequence[Setting], limit: Limit, say: Say) -> tuple[Setting, int] | None:
    """The first of `settings` that survives, and which of `CANDIDATES` is faster there with one request; None where
    none survives."""
    one = replace(work, requests=1)
    for setting in settings:
        seconds: dict[int, float] = {}
        for candidates in CANDIDATES:
            outcome = assisted(one, setting, candidates, limit)
            if outcome.killed:
                break
            seconds[candidates] = outcome.result("assisted generation")["seconds"]
            share = setting.ram_bytes / limit.bytes
            say(f"  assisted, {share:.0%} for weights, {candidates} candidates: {seconds[candidates]:.1f} s")
        if seconds:
            return setting, min(seconds, key=seconds.__getitem__)
    return None


def _run(module: str, work: Work, setting: Setting, limit: Limit, options: Sequence[str]) -> Outcome:
    with tempfile.TemporaryDirectory(dir=work.pair.folder.parent, prefix="offload-") as folder:
        command = [
            *(f"benchmarks.peers.{module}", "--target", str(work.pair.target), "--prompts", str(work.pair.prompts)),
            *("--folder", folder, "--ram-bytes", str(setting.ram_bytes), "--experts", setting.experts),
            *("--threads", str(work.threads), *options),
        ]
        return run_child(command, limit, (work.pair.folder, Path(folder)))


def _speed(trial: Trial, work: Work) -> str:
    seconds = trial.seconds(trial.batch, work.new_tokens)
    return "killed" if math.isinf(seconds) else f"{trial.batch * work.new_tokens / seconds:.2f} tokens/s"
