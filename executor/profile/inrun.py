"""What tasks take in a run beyond what their pieces take in a row: a small generated pair is planned for and run.

In a run a task begins on another thread than the one that knows that it can, finds caches that reads and other tasks
have filled, and shares the cores with all that keeps the run going. Only tasks of these runs are looked at, one by
one; nothing is fitted to the throughput of any.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scipy.stats import trim_mean

from executor.pairs.make import make, plan_pair
from executor.profile.analysis import Measured
from specsim import api
from specsim.errors import InputError
from specsim.hardware import TASK_KINDS
from specsim.planfile import dump_yaml, write_plan
from specsim.schedule.graph import parse
from specsim.timeline.timeline import Span, Timeline
from specsim.timeline.trace import read_trace

#: a pair of 0.25 GB, of which a part is read in every pass
SIZES: Final = {
    "hidden_size": 768,
    "num_hidden_layers": 4,
    "intermediate_size": 1536,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 8192,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
}
NOISE: Final = 0.05
SHARD_BYTES: Final = 2**29
#: of the weights, in RAM
SHARE: Final = 0.6
SEQUENCES: Final = 8
PROMPT_TOKENS: Final = 64
NEW_TOKENS: Final = 32
GAMMA: Final = 3
#: seconds; a task that begins later than this after the one before it had to wait for weights, which hides what it
#: takes longer for that
AT_ONCE: Final = 5e-4
#: rounds in which libraries meet shapes for the first time
WARM_ROUNDS: Final = 2
#: of the longest and of the shortest each, left out: what else the machine did
EXTREMES: Final = 0.05
#: more are worth nothing
_DIGITS: Final = 3

#: predicted and measured seconds of tasks of a kind
Times = list[tuple[float, float]]


def in_run_facts(machine: Mapping[str, Any], *, runs: int, say: Callable[[str], None]) -> dict[str, Measured]:
    """Facts of the host of a `machine` (as its profile has it) that runs tell, on the threads that it was measured
    with. Raises SpecsimError where the pair cannot be written, planned for or run."""
    alone = {name: part for name, part in machine.items() if name not in ("gpu", "link")} | {"gpu": "none"}
    say("runs of a small pair")
    try:
        with tempfile.TemporaryDirectory(prefix="specsim-profile-") as name:
            return task_facts(_runs(Path(name), alone, runs))
    except OSError as error:
        hint = "make room for 0.4 GB, or name another directory: TMPDIR"
        raise InputError(f"a small pair cannot be written: {error.strerror}", where="profile", hint=hint) from None


def _runs(folder: Path, machine: Mapping[str, Any], runs: int) -> list[tuple[Timeline, Timeline]]:
    """Predicted and measured timelines."""
    pair, place = plan_pair(SIZES, draft_layers=1, draft_ratio=None), folder / "pair"
    make(place, pair, noise=NOISE, seed=0, shard_bytes=SHARD_BYTES, say=lambda what: None)
    (folder / "machine.yaml").write_text(dump_yaml(machine), encoding="utf-8")
    plan = api.plan(
        machine=folder / "machine.yaml",
        ram=SHARE * pair.target.weight_bytes + pair.draft.weight_bytes,
        target=place / pair.target.name,
        draft=place / pair.draft.name,
        acceptance=0.7,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=NEW_TOKENS,
        requests=SEQUENCES,
        fix={"strategy": "serial", "gamma": GAMMA, "batch": SEQUENCES},
    )
    write_plan(plan, folder / "plan.yaml")
    asked = ["--target", str(place / pair.target.name), "--draft", str(place / pair.draft.name), "--ignore-eos"]
    asked += ["--prompts", str(place / "prompts.jsonl"), "--limit", str(SEQUENCES)]
    found = []
    for number in range(runs):
        out = folder / f"out{number}"
        command = [sys.executable, "-m", "specsim", "run", str(folder / "plan.yaml"), *asked, "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"a small pair cannot be run: {done.stderr.strip()}", where="profile")
        trace = read_trace(out / "trace.json")
        found.append((trace["predicted"], trace["measured"]))
    return found


def task_facts(runs: Sequence[tuple[Timeline, Timeline]]) -> dict[str, Measured]:
    """Of predicted and measured timelines, by the tasks of decoding that began as soon as the processor was free; none
    of a kind that never did."""
    times = [_times(*run) for run in runs]
    asked = [(f"in_run_{kind}", str(kind), _more) for kind in TASK_KINDS] + [("draft_efficiency", "draft", _share)]
    taken = {kind: [some[kind] for some in times if some[kind]] for _, kind, _ in asked}
    return {fact: _measured(kind, taken[kind], of) for fact, kind, of in asked if taken[kind]}


def _times(predicted: Timeline, measured: Timeline) -> Mapping[str, Times]:
    """By the kind of the tasks."""
    times: dict[str, Times] = defaultdict(list)
    expected = {span.name: span for span in predicted.spans}
    last = 0.0
    ran = (span for span in measured.spans if span.flops and span.end > span.start)  # others had nothing to do
    for span in sorted(ran, key=lambda span: span.start):
        at_once, last = span.start - last < AT_ONCE, span.end
        name = parse(span.name)
        warm = name.phase in ("verify", "draft") and name.round >= WARM_ROUNDS
        if at_once and warm and span.name in expected:
            times[span.kind].append((_seconds(expected[span.name]), _seconds(span)))
    return times


def _measured(kind: str, runs: Sequence[Times], of: Callable[[Times], float]) -> Measured:
    """From all tasks; the spread is that of what single runs say, as a share of a task's time."""
    tasks = [times for run in runs for times in run]
    value, each = of(tasks), [of(run) for run in runs]
    unit = 1.0 if of is _share else statistics.median(measured for _, measured in tasks)
    spread = statistics.median(abs(one - value) for one in each) / unit
    how = f"{len(tasks)} {kind} tasks of {len(runs)} runs of a small pair, beside what their pieces take in a row"
    return Measured(float(f"{value:.{_DIGITS}g}"), len(tasks), spread, how)


def _more(tasks: Times) -> float:
    """Seconds that tasks take longer than predicted."""
    return max(0.0, float(trim_mean([measured - predicted for predicted, measured in tasks], EXTREMES)))


def _share(tasks: Times) -> float:
    """Of the predicted speed."""
    predicted, measured = (float(trim_mean(seconds, EXTREMES)) for seconds in zip(*tasks, strict=True))
    return min(1.0, predicted / measured)


def _seconds(span: Span) -> float:
    return span.end - span.start
