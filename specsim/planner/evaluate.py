"""From a candidate to numbers, in three steps of rising cost: a bound, a placement, a simulated job.

One `Evaluator` serves one search: it keeps the loads that candidates share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from specsim.case import Case
from specsim.cost.shapes import PassShape, decode_shape, prefill_shape
from specsim.decision import (
    MEMORY_OF,
    AttentionPlacement,
    Decision,
    DraftPolicy,
    PartPlacement,
    Policy,
    Tail,
    homes_of,
)
from specsim.planner.bound import job_bound
from specsim.planner.candidates import Candidate, Fixed
from specsim.planner.options import (
    Loads,
    PassLoads,
    PassOption,
    attention_placements,
    draft_loads,
    draft_policies,
    measure,
    part_placements,
    pass_loads,
    weight_homes,
)
from specsim.planner.placement import DraftChoice, Placed, PlacementProblem, place, undominated
from specsim.planner.tails import tail_layers
from specsim.schedule.lower import SLOTS, lower_transition
from specsim.simulator.job import JobResult, simulate_job
from specsim.simulator.progress import rounds_needed
from specsim.workload import prompt_lengths

#: grid of round shapes while searching; the chosen plan is simulated on the fine one
SEARCH_GRID = 6
#: relative optimality gap of placements: far below what the model knows
PLACEMENT_GAP = 1e-3
PLACEMENT_NODES = 300
#: processors are chosen anew when only in_flight / divisor sequences are left
TAIL_DIVISORS = (2, 4, 8, 16, 32, 64, 256)


@dataclass(frozen=True, slots=True)
class Weights:
    """How often a job pays for a round, a target sweep and a prefill."""

    rounds: float
    sweeps: int
    prefills: float


@dataclass
class Evaluator:
    """Bounds, places and simulates candidates of one case."""

    case: Case
    fixed: Fixed = field(default_factory=Fixed)
    _loads: dict[Any, PassLoads] = field(default_factory=dict)
    _draft_loads: dict[Any, Loads] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return prompt_lengths(self.case.workload).astype(float)

    @cached_property
    def mean_prompt(self) -> float:
        return float(self.lengths.mean())

    @property
    def context(self) -> float:
        """Cached positions per sequence half way through its output."""
        return self.mean_prompt + self.case.workload.output_tokens / 2

    def attention(self, policy: Policy) -> tuple[AttentionPlacement, ...]:
        choices = attention_placements(self.case.machine, weight_homes(self.case, policy))
        wanted = {None: None, "gpu": ("gpu", "gpu"), "cpu": ("cpu", "gpu"), "cpu+projections": ("cpu", "cpu")}
        asked = wanted[self.fixed.attention]
        return tuple(a for a in choices if asked is None or (a.processor, a.projections) == asked)

    def parts(self, policy: Policy) -> tuple[PartPlacement, ...]:
        return tuple(part_placements(self.case.machine, weight_homes(self.case, policy)))

    def weights(self, policy: Policy) -> Weights:
        """Rounds: sequences pay one each time they take part; a round serves at most those in flight."""
        workload = self.case.workload
        needed = rounds_needed(self.case.acceptance, policy.gamma, workload.requests, workload.output_tokens - 1)
        sweeps = -(-policy.in_flight // policy.prefill_batch)
        if policy.refill:
            return Weights(max(float(needed.max()), float(needed.sum()) / policy.in_flight), sweeps, 1.0)
        waves = [needed[i : i + policy.in_flight] for i in range(0, workload.requests, policy.in_flight)]
        full = sum(max(1.0, float(wave.sum()) / policy.in_flight) for wave in waves)
        return Weights(full, sweeps, float(len(waves)))

    # step 1: the bound

    def bound_seconds(self, candidate: Candidate) -> float:
        """Seconds that the job takes at least, whatever the placement and the draft's home."""
        policy = candidate.policy
        first = self.lengths[: policy.prefill_batch].tolist()
        return job_bound(self.case, candidate, self.mean_prompt, self.weights(policy).rounds, first)

    # step 2: the placement

    def problem(self, candidate: Candidate) -> PlacementProblem:
        policy, weights = candidate.policy, self.weights(candidate.policy)
        return PlacementProblem(
            self.case,
            candidate.strategy,
            policy,
            self.attention(policy),
            self.parts(policy),
            self.verify_loads(candidate.strategy, policy, policy.batch),
            self.prefill_loads(policy),
            tuple(self._draft_choices(policy)) if policy.gamma else (),
            SLOTS[candidate.strategy],
            weights.sweeps,
            weights.rounds,
            weights.prefills,
        )

    def place(self, candidate: Candidate) -> Placed | None:
        """The best placement of a candidate, with its tails still to come."""
        return place(self.problem(candidate), PLACEMENT_GAP, PLACEMENT_NODES)

    def with_tails(self, decision: Decision) -> Decision:
        """The decision with other processors for rounds in which few sequences are left.

        Such rounds come at the end of every batch that is not refilled, and at the end of the job: the slowest requests
        need up to twice the mean number of rounds.
        """
        policy = decision.policy
        tails: list[Tail] = []
        if not any(MEMORY_OF[home] == "ram" for place in decision.layers for home in homes_of(place)):
            return decision
        if self.case.machine.gpu is None:
            return decision
        for divisor in TAIL_DIVISORS:
            rows = policy.in_flight // divisor
            if rows < 1:
                break
            loads = self.verify_loads(decision.strategy, policy, rows / policy.batches)
            choices = self.attention(policy), self.parts(policy)
            layers = tail_layers(self.case, decision.layers, loads, *choices, policy.ring_slots)
            if layers != (tails[-1].layers if tails else decision.layers):
                tails.append(Tail(rows, layers))
        return msgspec.structs.replace(decision, tails=tuple(tails))

    def _draft_choices(self, policy: Policy) -> list[DraftChoice]:
        """Every way to run the draft that the user allows, less those that another beats in everything."""
        fixed = self.fixed
        drafts: dict[DraftPolicy, None] = {}
        for draft in draft_policies(self.case, policy):
            if fixed.draft_kv in (None, draft.kv):
                size = draft.micro_batch if fixed.draft_batch is None else min(fixed.draft_batch, policy.batch)
                drafts[DraftPolicy(draft.processor, draft.kv, size, draft.waits)] = None
        choices = [DraftChoice(d, self._drafting(policy, d), self._transition(policy, d)) for d in drafts]
        return undominated(self.case, policy, choices)

    def _drafting(self, policy: Policy, draft: DraftPolicy) -> Loads:
        key = (policy.batch, policy.gamma, msgspec.structs.replace(draft, waits=False))
        if key not in self._draft_loads:
            self._draft_loads[key] = draft_loads(self.case, policy, draft, self.context)
        return self._draft_loads[key]

    def _transition(self, policy: Policy, draft: DraftPolicy) -> Loads:
        key = (policy.in_flight, policy.batch, draft)
        if key not in self._draft_loads:
            graph = lower_transition(self.case, policy.gamma, draft, self.lengths[: policy.in_flight].tolist())
            self._draft_loads[key] = measure(graph, self.case.machine, waiting_loads=True)
        return self._draft_loads[key]

    # step 3: the simulated job

    def simulate(self, decision: Decision, *, grid: int = SEARCH_GRID) -> JobResult:
        return simulate_job(self.case, decision, grid=grid)

    # loads that candidates share

    def verify_loads(self, strategy: str, policy: Policy, rows: float) -> PassLoads:
        """Loads of a verify pass with `rows` sequences in each batch."""
        shape = decode_shape(rows, policy.gamma + 1, self.context, self.case.target.sliding_window)
        batches = 1 if strategy == "interleaved" else policy.batches
        option = PassOption("verify", batches, policy.verify_micro_batches, policy.expert_fetch == "routed")
        return self._pass_loads(option, shape, policy)

    def prefill_loads(self, policy: Policy) -> PassLoads:
        shape = prefill_shape(self.lengths[: policy.prefill_batch].tolist(), self.case.target.sliding_window)
        return self._pass_loads(PassOption("prefill", 1, policy.prefill_micro_batches, False), shape, policy)

    def _pass_loads(self, option: PassOption, shape: PassShape, policy: Policy) -> PassLoads:
        args = self.attention(policy), self.parts(policy)
        key = (option, shape, *args)
        if key not in self._loads:
            self._loads[key] = pass_loads(self.case, option, shape, *args)
        return self._loads[key]

