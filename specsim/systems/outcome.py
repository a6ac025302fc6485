"""Run a system on a machine: its stages through the simulator, and what a table wants to know of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from specsim.case import Case
from specsim.hardware import Curve, Machine, Processor
from specsim.schedule.graph import Graph
from specsim.simulator import pricing
from specsim.systems.simulate import phase_seconds, stage_graphs
from specsim.systems.system import Bytes, Job, Policy, System
from specsim.timeline import Timeline, utilisation, waiting_on


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares (0..1] of a machine's raw rates that a system reaches; None leaves what the machine says. `link`: its
    copies, pinned or not; `gpu`, `cpu`: matrix products and attention there; `dram`: what the CPU reads and writes."""

    link: float | None = None
    gpu: float | None = None
    cpu: float | None = None
    dram: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one job of a system takes, and its peak bytes by memory."""

    system: System
    case: Case
    policy: Policy
    job: Job
    prefill_s: float
    decode_s: float
    peak_bytes: Bytes

    @property
    def seconds(self) -> float:
        return self.prefill_s + self.decode_s

    @property
    def counted_per_s(self) -> float:
        """Tokens per second as the system itself reports them."""
        return self.job.counted / self.seconds

    @property
    def useful_per_s(self) -> float:
        """Tokens per second of those that the requests asked for."""
        return self.job.useful / self.seconds

    @property
    def latency_s(self) -> float:
        """Mean seconds from a request's one token to its next while decoding."""
        return self.decode_s / max(1, self.case.workload.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class Laid:
    """A job whose passes are laid, `graphs[stage][shape]`, but not yet timed."""

    system: System
    policy: Policy
    job: Job
    graphs: tuple[tuple[Graph, ...], ...]
    peak_bytes: Bytes


def run(case: Case, system: System, policy: Policy | None = None) -> Outcome:
    """One job of `system` under `policy`, or under the one that it chooses. Raises InfeasibleError where none fits."""
    return timed(lay(case, system, policy or system.choose(case)), case)


def lay(case: Case, system: System, policy: Policy) -> Laid:
    """All that does not depend on how fast the machine is."""
    job = system.job(case, policy)
    graphs = tuple(stage_graphs(case, stage) for stage in job.stages)
    return Laid(system, policy, job, graphs, system.memory(case, policy))


def timed(laid: Laid, case: Case) -> Outcome:
    """A laid job on the machine of `case`."""
    seconds = phase_seconds(laid.job, laid.graphs, case.machine)
    return Outcome(laid.system, case, laid.policy, laid.job, seconds["prefill"], seconds["decode"], laid.peak_bytes)


def decoding(outcome: Outcome) -> Timeline:
    """The decode pass that the job spends most time in, half way through."""
    stages = [stage for stage in outcome.job.stages if stage.phase == "decode"]
    stage = max(stages, key=lambda stage: stage.times)
    graphs = stage_graphs(outcome.case, stage)
    return pricing.simulate(graphs[len(graphs) // 2], outcome.case.machine)


def busy(outcome: Outcome) -> dict[str, float]:
    """Busy share (0..1) of a decode pass, by resource."""
    return utilisation(decoding(outcome))


def waits_for(outcome: Outcome) -> tuple[str, float]:
    """The stream that a decode pass mostly waits for, and for which share of it."""
    shares: Mapping[str, float] = waiting_on(decoding(outcome))
    stream = max(shares, key=lambda name: shares[name])
    return stream, shares[stream]


def reaching(machine: Machine, shares: Shares) -> Machine:
    """`machine` with the efficiencies that `shares` gives in place of its own."""
    if shares.gpu is not None and machine.gpu is not None:
        machine = replace(machine, gpu=replace(machine.gpu, processor=_at(machine.gpu.processor, shares.gpu)))
    processor = machine.host.processor
    if shares.cpu is not None:
        processor = _at(processor, shares.cpu)
    if shares.dram is not None:
        processor = replace(processor, bandwidth_efficiency=shares.dram)
    machine = replace(machine, host=replace(machine.host, processor=processor))
    if shares.link is not None and machine.link is not None:
        link = replace(machine.link, efficiency=shares.link, pageable_efficiency=shares.link)
        machine = replace(machine, link=link)
    return machine


def _at(processor: Processor, share: float) -> Processor:
    return replace(processor, gemm_efficiency=Curve.flat(share), attention_efficiency=share)
