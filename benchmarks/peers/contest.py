"""The contest itself: plans, equal tokens, then every competitor in turn, as often as asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.peers.child import Limit, Outcome, run_child
from benchmarks.peers.ours import PLAIN, SPECULATIVE, TRACE, VARIANTS, OurRun, Variant, Work, make_plan, run_plan
from benchmarks.peers.parity import Reference, Tokens, compare
from benchmarks.peers.report import Row
from benchmarks.peers.tuning import Say, Setting, Trial, accelerate, assisted
from specsim.planfile import read_plan

#: assisted generation takes requests one by one, so that a few say what all would take
ASSISTED_REQUESTS = 2
ASSISTED = "transformers assisted"


class UnequalError(Exception):
    """Outputs differ in a way that nothing excuses, or lack: speeds would compare different work."""


@dataclass(frozen=True, slots=True)
class Contest:
    """What is the same for all competitors at one number of requests. `reference` is what transformers generates
    without a limit; `plans` are by variant, those that could be made."""

    work: Work
    limit: Limit
    numerics: str
    folder: Path
    reference: Reference
    plans: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Competitor:
    """`run` adds one repetition to `row`."""

    row: Row
    run: Callable[[], None]


def make_plans(work: Work, machine: Path, ram: str, folder: Path, say: Say) -> dict[str, Path]:
    """Files by variant."""
    plans = {}
    for variant in VARIANTS:
        out = folder / f"plan-{work.requests}-{VARIANTS.index(variant)}.yaml"
        refusal = make_plan(variant, work, machine, ram, out)
        say(f"  {variant.name}, {work.requests}: {refusal or _described(out)}")
        if refusal is None:
            plans[variant.name] = out
    return plans


def check_equal(contest: Contest, say: Say) -> Tokens:
    """Our own tokens, with speculation. Raises UnequalError where `exact` numerics give others without it, or where
    transformers gives others though it was sure, or where a run was killed and there is nothing to compare."""
    speculative, plain = (_tokens(contest, variant) for variant in (SPECULATIVE, PLAIN))
    if contest.numerics == "exact" and speculative != plain:
        raise UnequalError("our tokens with speculation are not those without it")
    parity = compare(contest.reference, speculative)
    say(f"  ours against transformers, {contest.work.requests} requests: {parity}")
    if not parity.explained:
        raise UnequalError(f"more than ties between us and transformers: {parity}")
    return speculative


def competitors(
    contest: Contest, tokens: Tokens, peer: Trial | None, helped: tuple[Setting, int] | None
) -> list[Competitor]:
    """All of them, their rows still empty. `peer` is accelerate's best trial, `helped` assisted generation's setting;
    None where nothing survived the limit."""
    found = [_ours(contest, variant, tokens) for variant in VARIANTS if variant.name in contest.plans]
    if peer is not None:
        found.append(_accelerate(contest, peer))
    if helped is not None:
        found.append(_assisted(contest, *helped))
    return found


def _tokens(contest: Contest, variant: Variant) -> Tokens:
    _, done = _run_ours(contest, variant)
    if done is None:
        raise UnequalError(f"{variant.name} was killed for want of memory")
    return done.tokens


def _ours(contest: Contest, variant: Variant, tokens: Tokens) -> Competitor:
    plan, work = contest.plans[variant.name], contest.work
    row = Row(variant.name, work.requests, work.requests, read_plan(plan).predicted.tokens_per_second)

    def run() -> None:
        outcome, done = _run_ours(contest, variant)
        if done is None:
            row.killed.append(True)
            return
        if contest.numerics == "exact" and done.tokens != tokens:
            raise UnequalError(f"{variant.name}: other tokens than before")
        _note(contest, row, outcome, done.tokens, done.metrics["seconds"], done.metrics["load_s"])
        row.read_bytes.append(done.metrics["bytes_moved"].get("disk", 0))
        if variant.replayed and done.rates is not None:
            trace = contest.folder / "run" / TRACE
            command = ("benchmarks.peers.replay", str(plan), "--target", str(work.pair.target), "--trace", str(trace))
            alone = run_child(command, contest.limit, (work.pair.folder,)).result("replay")
            per_s = alone["bytes"] / alone["seconds"]
            row.disk_verify.append(done.rates.verify_bytes_per_s / per_s)
            row.disk_decode.append(done.rates.decode_bytes_per_s / per_s)

    return Competitor(row, run)


def _accelerate(contest: Contest, trial: Trial) -> Competitor:
    work = contest.work
    row = Row("accelerate", work.requests, work.requests, note=f"batch {trial.batch}, {_share(contest, trial.setting)}")

    def run() -> None:
        options = ("--new-tokens", str(work.new_tokens), "--batch", str(trial.batch), "--requests", str(work.requests))
        _note_peer(contest, row, accelerate(work, trial.setting, contest.limit, *options))

    return Competitor(row, run)


def _assisted(contest: Contest, setting: Setting, candidates: int) -> Competitor:
    work = replace(contest.work, requests=ASSISTED_REQUESTS)
    how = f"{candidates} candidates" if candidates else "its own schedule of candidates"
    note = f"one by one, {how}, {_share(contest, setting)}"
    row = Row(ASSISTED, contest.work.requests, work.requests, note=note)
    return Competitor(row, lambda: _note_peer(contest, row, assisted(work, setting, candidates, contest.limit)))


def _run_ours(contest: Contest, variant: Variant) -> tuple[Outcome, OurRun | None]:
    """No run where it was killed for want of memory. Raises RuntimeError where it failed otherwise."""
    plan, out = contest.plans[variant.name], contest.folder / "run"
    outcome, done = run_plan(plan, variant, contest.work, contest.limit, contest.numerics, out)
    if done is None and not outcome.killed:
        outcome.result(variant.name)
    return outcome, done


def _note_peer(contest: Contest, row: Row, outcome: Outcome) -> None:
    if outcome.killed:
        row.killed.append(True)
        return
    line = outcome.result(row.name)
    _note(contest, row, outcome, line["tokens"], line["seconds"], line["load_s"])
    row.read_bytes.append(line["read_bytes"])


def _note(
    contest: Contest, row: Row, outcome: Outcome, tokens: Sequence[Sequence[int]], seconds: float, load_s: float
) -> None:
    row.killed.append(False)
    row.tokens_per_s.append(sum(map(len, tokens)) / seconds)
    row.load_s.append(load_s)
    row.identical.append(compare(contest.reference, tokens).identical)
    if outcome.peak_bytes is not None:
        row.peak_bytes.append(outcome.peak_bytes)


def _share(contest: Contest, setting: Setting) -> str:
    return f"{setting.experts} experts, {setting.ram_bytes / contest.limit.bytes:.0%} of the limit for weights"


def _described(plan: Path) -> str:
    found = read_plan(plan)
    policy = found.decision.policy
    shape = f"{found.decision.strategy}, gamma {policy.gamma}, {policy.batches} x {policy.batch}"
    return f"{shape}, {found.predicted.tokens_per_second:.1f} tokens/s predicted"
