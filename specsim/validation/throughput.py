"""From the predicted throughput to the measured one in steps, each of which is one thing that the plan did not know.

    planned -> with the acceptance that was measured -> the requests and rounds as they turned out -> measured

Steps are taken in seconds per useful token, which add up: a step's share is its seconds over the planned ones, and the
shares sum to planned / measured throughput - 1, the error of the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from specsim.acceptance import Acceptance, expected_tokens
from specsim.answer import Plan
from specsim.case import Case
from specsim.simulator.job import simulate_job
from specsim.timeline import Timeline
from specsim.validation.interval import Interval, interval
from specsim.validation.terms import MachineError, machine_error


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run's metrics say. `acceptance` is by position, empty where nothing was proposed, `acceptance_spread` the
    deviation between requests, None where there are too few of them."""

    requests: int
    useful_tokens: int
    seconds: float
    acceptance: tuple[float, ...]
    acceptance_spread: float | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.useful_tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Comparison:
    """Useful tokens per second at each step (see above), and the error of the last one by term. `interval` is that of
    the planned one; `reacted` equals `planned` where nothing was proposed; `replayed` is the cost model's answer for
    the tasks that really ran."""

    planned: float
    reacted: float
    replayed: float
    measured: float
    assumed_acceptance: tuple[float, ...]
    measured_acceptance: tuple[float, ...]
    interval: Interval
    machine: MachineError

    @property
    def error(self) -> float:
        """How many times too high the plan's throughput is, less one: 0.33 is 33 % too high."""
        return self.planned / self.measured - 1

    @property
    def assumed_per_round(self) -> float:
        """Tokens that the plan has accepted in a round, the target's own not counted."""
        return _accepted(self.assumed_acceptance)

    @property
    def measured_per_round(self) -> float:
        """And those of a round with the acceptance that was measured, as long as the plan's."""
        return _accepted(self.measured_acceptance)

    @property
    def acceptance_share(self) -> float:
        """The part of the error that another acceptance than the plan's makes."""
        return self.planned / self.reacted - 1

    @property
    def requests_share(self) -> float:
        """And the part of luck: requests differ from one another, and end early."""
        return self.planned / self.replayed - self.planned / self.reacted

    @property
    def machine_share(self) -> float:
        """And the part of the machine's terms, in the same unit as those."""
        return self.planned / self.measured - self.planned / self.replayed

    def share(self, seconds: float) -> float:
        """The part of the error that so many seconds of the run are; those of the machine's terms sum to its share."""
        return self.planned / self.measured * seconds / self.machine.measured_s


def compare(plan: Plan, ran: Ran, predicted: Timeline, measured: Timeline) -> Comparison:
    """A plan and its run. `predicted` is the cost model's timeline for the rounds as they turned out."""
    case, gamma = plan.case, plan.decision.policy.gamma
    machine = machine_error(predicted, measured, case.machine.in_turn)
    spread = ran.acceptance_spread or 0.0
    seen = Acceptance(ran.acceptance, "measured", "this run", spread) if ran.acceptance else None
    planned = reacted = plan.predicted.tokens_per_second
    if seen is not None:
        reacted *= _throughput(replace(case, acceptance=seen), plan) / _throughput(case, plan)
    return Comparison(
        planned=planned,
        reacted=reacted,
        replayed=ran.tokens_per_second * machine.measured_s / machine.predicted_s,
        measured=ran.tokens_per_second,
        assumed_acceptance=tuple(case.acceptance.at(i) for i in range(gamma)) if case.acceptance is not None else (),
        measured_acceptance=tuple(seen.at(i) for i in range(gamma)) if seen is not None else (),
        interval=interval(plan),
        machine=machine,
    )


def _accepted(hazards: tuple[float, ...]) -> float:
    return expected_tokens(Acceptance(hazards, "", ""), len(hazards)) - 1 if hazards else 0.0


def _throughput(case: Case, plan: Plan) -> float:
    return simulate_job(case, plan.decision).tokens_per_second
