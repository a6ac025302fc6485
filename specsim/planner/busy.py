"""How long each part of the machine is busy over a whole job, prefill and the thinning tail included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from specsim.case import Case
from specsim.cost.timing import resource
from specsim.decision import Decision
from specsim.devices import bare
from specsim.energy import Energy, energy_of
from specsim.planner.predict import round_timeline
from specsim.schedule.lower import lower_prefill
from specsim.schedule.round import RoundShape
from specsim.simulator.job import JobResult, Round
from specsim.simulator.pricing import simulate
from specsim.timeline import Timeline
from specsim.timeline.timeline import busy_seconds
from specsim.workload import prompt_lengths

#: rounds whose rows differ by less than this ratio are taken to be busy alike
ALIKE: Final = 1.25


def job_energy(case: Case, decision: Decision, job: JobResult) -> Energy:
    """What a simulated job takes from the wall."""
    return energy_of(case.machine, job_busy_seconds(case, decision, job), job.makespan_s, job.tokens)


def job_busy_seconds(case: Case, decision: Decision, job: JobResult) -> dict[str, float]:
    """Busy seconds of gpu, cpu, dram, disk, and the link's two ways, over the whole job; of devices that do the same,
    those of all of them together.

    Shares are read off the prefill of the first prompts in flight and one round of each size, and weighted with the
    seconds that the job spends on such.
    """
    lengths = prompt_lengths(case.workload)[: decision.policy.in_flight].tolist()
    total: dict[str, float] = defaultdict(float)
    parts = [(_shares(simulate(lower_prefill(case, decision, lengths), case.machine)), job.prefill_s)]
    for rounds in _alike(job).values():
        middle = rounds[len(rounds) // 2]
        shape = RoundShape(float(max(1, middle.rows)), middle.context, middle.joining)
        seconds = sum(r.end_s - r.start_s for r in rounds)
        parts.append((_shares(round_timeline(case, decision, shape)), seconds))
    shared = {"dram", "disk"} if case.machine.gpu is None else {"dram", "disk", "cpu"}
    for shares, seconds in parts:
        for part, share in shares.items():
            total[part] += share * seconds * (1 if bare(part) in shared else decision.policy.tensor)
    return dict(total)


def _alike(job: JobResult) -> dict[tuple[int, bool], list[Round]]:
    """The job's rounds by size, and by whether newcomers join."""
    groups: dict[tuple[int, bool], list[Round]] = defaultdict(list)
    for r in job.rounds:
        size = 0
        while ALIKE**size < r.rows:
            size += 1
        groups[size, r.joining > 0].append(r)
    return groups


def _shares(timeline: Timeline) -> Mapping[str, float]:
    """Busy share by resource; DRAM is busy while the CPU computes, a copy runs or the disk fills it."""
    beside = ("gpu", "peer")
    touching = (replace(span, stream="dram") for span in timeline.spans if bare(resource(span.stream)) not in beside)
    busy = busy_seconds(timeline) | busy_seconds(Timeline(tuple(touching)))
    return {part: seconds / timeline.makespan for part, seconds in busy.items()} if timeline.makespan else {}
