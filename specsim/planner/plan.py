"""Make a plan: search, predict, and say why the others lost and what would help most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from specsim import __version__
from specsim.answer import Plan, Provenance, RunnerUp, SearchInfo, Upgrade
from specsim.case import Case
from specsim.decision import homes_of
from specsim.hardware import Machine
from specsim.planner.busy import job_energy
from specsim.planner.candidates import Fixed, check
from specsim.planner.evaluate import Evaluator
from specsim.planner.infeasible import explain_infeasible
from specsim.planner.layouts import search_all
from specsim.planner.predict import band, predict
from specsim.planner.search import Found, Progress, SearchResult
from specsim.planner.solver import SOLVER
from specsim.simulator.job import simulate_job
from specsim.units import show

#: an acceptance that nobody measured is shown as a band of this half-width
BAND: Final = 0.15
#: what a person can buy more of -> resources of the machine that it multiplies
UPGRADES: Final[dict[str, tuple[str, ...]]] = {
    "link bandwidth": ("link",),
    "VRAM": ("vram",),
    "GPU compute": ("gpu", "vram_bw"),
    "CPU and DRAM bandwidth": ("cpu", "dram"),
    "RAM": ("ram",),
    "disk bandwidth": ("disk",),
    "link between devices": ("peer",),
}


def upgrades_of(machine: Machine) -> list[tuple[str, tuple[str, ...]]]:
    """What can be bought for a machine: name, and the resources that it multiplies."""
    without: tuple[str, ...] = () if machine.gpu is not None else ("link bandwidth", "VRAM", "GPU compute")
    without += () if machine.devices > 1 else ("link between devices",)
    return [(name, resources) for name, resources in UPGRADES.items() if name not in without]


def make_plan(case: Case, fixed: Fixed | None = None, *, progress: Progress | None = None) -> Plan:
    """The best plan for `case` within what is `fixed`. Raises InfeasibleError where nothing fits."""
    fixed = fixed or Fixed()
    check(case, fixed)
    result = search_all(case, fixed, progress)
    if not result.found:
        raise explain_infeasible(case, fixed)
    best = result.found[0]
    job = simulate_job(case, best.decision)
    energy = job_energy(case, best.decision, job)
    predicted = msgspec.structs.replace(
        predict(case, best.decision, result.bound, job=job),
        watts={part: round(watts, 1) for part, watts in energy.watts.items()},
        joules_per_token=energy.joules_per_token,
    )
    if case.acceptance is not None and case.acceptance.kind == "assumed" and best.decision.policy.gamma:
        alpha = case.acceptance.hazards[0]
        ends = band(case, best.decision, max(0.0, alpha - BAND), min(1.0, alpha + BAND))
        predicted = msgspec.structs.replace(predicted, band=ends)
    search = SearchInfo(
        candidates=result.candidates,
        feasible=result.feasible,
        seconds=round(result.seconds, 3),
        solver=SOLVER,
        gap=round(result.gap, 4),
        runners_up=list(_runners_up(result)),
        upgrades=sorted(_upgrades(case, fixed, best), key=lambda u: -u.gain),
    )
    return Plan(case, best.decision, predicted, search, Provenance(version=__version__, assumptions=assumptions(case)))


def assumptions(case: Case) -> list[str]:
    """What the plan takes on trust, a line each."""
    lines = [f"{f.field} {f.value} ({f.source})" for f in case.machine.facts if f.kind == "assumed"]
    if case.draft is not None:
        lines.insert(
            0, f"{case.draft.name} has the tokenizer of {case.target.name} (only the vocabularies' sizes are known)"
        )
    if case.acceptance is not None and case.acceptance.kind == "assumed":
        lines.insert(0, f"acceptance {case.acceptance.hazards[0]:g} ({case.acceptance.source})")
    return lines


def _runners_up(result: SearchResult) -> Iterator[RunnerUp]:
    """The best of every other kind of plan, and the next best of the same kind."""
    best, seen = result.found[0], set()
    for found in result.found:
        kind = (found.decision.strategy, found.decision.policy.gamma > 0, found is best)
        if kind in seen:
            continue
        seen.add(kind)
        if found is not best:
            label, slots = found.candidate.label, found.decision.policy.ring_slots
            if label == best.candidate.label:  # the climb also tries other rings
                label += f", a ring of {slots}"
            yield RunnerUp(
                plan=label,
                tokens_per_second=found.tokens_per_second,
                reason=_why_slower(found, best),
            )


def _why_slower(loser: Found, best: Found) -> str:
    """Where the time goes, against the winner."""
    a, b = loser.job, best.job
    mine, its = (show(job.decode_s / max(1, len(job.rounds)), "seconds") for job in (a, b))
    rounds = f"{len(a.rounds)} rounds of {mine} against {len(b.rounds)} of {its}"
    prefill = f"; prefill {show(a.prefill_s, 'seconds')} against {show(b.prefill_s, 'seconds')}"
    return rounds + (prefill if abs(a.prefill_s - b.prefill_s) > 0.02 * b.makespan_s else "")


def _upgrades(case: Case, fixed: Fixed, best: Found) -> Iterator[Upgrade]:
    """Gain of twice each resource, with the policy kept and the placement made anew: `explain` searches in full."""
    homes = {home for place in best.decision.layers for home in homes_of(place)}
    for name, resources in upgrades_of(case.machine):
        if name in ("RAM", "disk bandwidth") and not homes & {"disk", "pageable"}:
            continue  # RAM holds all that it is asked for, and the disk is not read
        better = case.on(case.machine.scaled(**dict.fromkeys(resources, 2.0)))
        evaluator = Evaluator(better, fixed)
        placed = evaluator.place(best.candidate)
        if placed is None:
            continue
        job = evaluator.simulate(evaluator.with_tails(placed.decision))
        yield Upgrade(resource=name, factor=2.0, gain=round(job.tokens_per_second / best.tokens_per_second - 1, 4))
