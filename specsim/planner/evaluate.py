"""From a candidate to numbers, in three steps of rising cost: a bound, a placement, a simulated job.

One `Evaluator` serves one search: it keeps the loads that candidates share.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
    LayerPlacement,
    PartPlacement,
    Policy,
    Tail,
    homes_of,
    slots,
)
from specsim.planner.bound import Demand, job_bound, stages_bound
from specsim.planner.candidates import Candidate, Fixed
from specsim.planner.drafts import undominated
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
from specsim.planner.pipeline import together
from specsim.planner.placement import place
from specsim.planner.problem import DraftChoice, Placed, PlacementProblem
from specsim.planner.tails import tail_layers
from specsim.positions import join_tokens
from specsim.schedule.lower import lower_transition
from specsim.schedule.round import RoundShape
from specsim.simulator.job import JobResult, RoundPricer, simulate_job
from specsim.simulator.progress import rounds_needed
from specsim.stages import stages
from specsim.workload import prompt_lengths

#: grid of round shapes while searching; the chosen plan is simulated on the fine one
SEARCH_GRID = 1.25
#: relative optimality gap of placements: far below what the model knows
PLACEMENT_GAP = 2e-3
PLACEMENT_NODES = 50
#: seconds of time that a second of load is worth saving for: enough to settle ties
THRIFT = 0.01
#: roughly what a round with hardly any sequences costs of a full one; only ranks candidates before they are simulated
TAIL_SHARE = 0.4
#: processors are chosen anew when only in_flight / divisor sequences are left
TAIL_DIVISORS = (2, 4, 8, 16, 64)


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
    sift: bool = False  # place quickly, see `placement.place`
    first: bool = True  # of several devices, the one with the head
    tensor: int = 1  # devices that share every layer of the case
    _loads: dict[Any, PassLoads] = field(default_factory=dict)
    _draft_loads: dict[Any, Loads] = field(default_factory=dict)
    _transition_loads: dict[Any, Loads] = field(default_factory=dict)
    _devices: dict[Any, Evaluator] = field(default_factory=dict)

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
        able = (a for a in choices if asked is None or (a.processor, a.projections) == asked)
        return tuple(a for a in able if self.fixed.kv in (None, a.kv))

    def parts(self, policy: Policy) -> tuple[PartPlacement, ...]:
        choices = part_placements(self.case.machine, weight_homes(self.case, policy))
        return tuple(part for part in choices if self.fixed.ffn in (None, part.processor))

    def weights(self, policy: Policy) -> Weights:
        """Rounds in units of full ones: a round of few sequences costs its share, but no less than `TAIL_SHARE`."""
        workload = self.case.workload
        needed = rounds_needed(self.case.acceptance, policy.gamma, workload.requests, workload.output_tokens - 1)
        sweeps = -(-policy.in_flight // policy.prefill_batch)
        if policy.refill:
            return Weights(self.refilled_rounds(policy, needed), sweeps, 1.0)
        waves = [needed[i : i + policy.in_flight] for i in range(0, workload.requests, policy.in_flight)]
        left = [(wave[:, None] > np.arange(wave.max())).sum(axis=0) / policy.in_flight for wave in waves]  # by round
        full = sum(float(np.maximum(share, TAIL_SHARE).sum()) for share in left)
        return Weights(full, sweeps, float(len(waves)))

    def newcomers_tokens(self, policy: Policy) -> float:
        """Prompt tokens of all requests that are not in the first prefill and join by verify passes."""
        return float(self.lengths[policy.in_flight :].sum()) if policy.refill else 0.0

    def refilled_rounds(self, policy: Policy, needed: np.ndarray[Any, np.dtype[np.int64]]) -> float:
        """Rounds at least: a newcomer also takes a place in the round that it joins by, and only so many prompt tokens
        join by one round."""
        joining = max(0, self.case.workload.requests - policy.in_flight)
        by_tokens = self.newcomers_tokens(policy) / join_tokens(self.case.workload)
        return max(float(needed.max()), (float(needed.sum()) + joining) / policy.in_flight, by_tokens)

    # step 1: the bound

    def bound_seconds(self, candidate: Candidate) -> float:
        """Seconds that the job takes at least, whatever the placement and the draft's home."""
        if candidate.policy.devices > 1:
            return stages_bound(self.case, candidate, self.demand(candidate.policy))
        return job_bound(self.case, candidate, self.demand(candidate.policy))

    def demand(self, policy: Policy) -> Demand:
        """What every plan with this policy has to do. A request takes part in as many rounds as its luck needs, in each
        with its prompt cached, as far as the window reaches."""
        workload, window = self.case.workload, self.case.target.sliding_window
        needed = rounds_needed(self.case.acceptance, policy.gamma, workload.requests, workload.output_tokens - 1)
        total = float(needed.sum())
        seen = self.lengths if window is None else np.minimum(self.lengths, window)
        context = float((seen * needed).sum()) / total if total else self.mean_prompt
        most = [float(needed[i : i + policy.in_flight].max()) for i in range(0, workload.requests, policy.in_flight)]
        rounds = self.refilled_rounds(policy, needed) if policy.refill else sum(most)
        first = self.lengths[: policy.prefill_batch].tolist()
        return Demand(total / policy.in_flight, rounds, context, first, self.newcomers_tokens(policy))

    # step 2: the placement

    def problem(self, candidate: Candidate) -> PlacementProblem:
        policy, weights = candidate.policy, self.weights(candidate.policy)
        joining = self.newcomers_tokens(policy) / max(1.0, weights.rounds)
        return PlacementProblem(
            self.case,
            candidate.strategy,
            policy,
            self.attention(policy),
            self.parts(policy),
            self._here(self.verify_loads(candidate.strategy, policy, policy.batch, joining)),
            self._here(self.prefill_loads(policy)),
            tuple(self._draft_choices(policy)) if policy.gamma and self.case.draft is not None else (),
            slots(candidate.strategy, policy),
            weights.sweeps,
            weights.rounds,
            weights.prefills,
            THRIFT,
            whole_layers=self.fixed.placement == "layers",
            first=self.first,
        )

    def place(self, candidate: Candidate) -> Placed | None:
        """The best placement of a candidate, with its tails still to come."""
        if candidate.policy.devices > 1 and self.case.machine.devices > 1:
            return self._over_devices(candidate)
        return place(self.problem(candidate), PLACEMENT_GAP, PLACEMENT_NODES, sift=self.sift)

    def with_tails(self, decision: Decision) -> Decision:
        """The decision with other processors for rounds in which few sequences are left.

        Such rounds come at the end of every batch that is not refilled, and at the end of the job: the slowest requests
        need up to twice the mean number of rounds.
        """
        policy = decision.policy
        tails: list[Tail] = []
        if policy.devices > 1:
            return decision  # every stage would have its own
        if not any(MEMORY_OF[home] == "ram" for place in decision.layers for home in homes_of(place)):
            return decision
        if self.case.machine.gpu is None:
            return decision
        if policy.gamma == 0 and policy.in_flight >= self.case.workload.requests:
            return decision  # all requests take equally many rounds, so all end together
        for divisor in TAIL_DIVISORS:
            rows = policy.in_flight // divisor
            if rows < 1:
                break
            loads = self.verify_loads(decision.strategy, policy, rows / policy.batches)
            choices = self.attention(policy), self.parts(policy)
            layers = tail_layers(self.case, decision.layers, loads, *choices, policy)
            # Layers were settled one by one, but share the link and the ring: the round itself has the last word.
            before = tails[-1].layers if tails else decision.layers
            if layers == before:
                continue
            if self._round_seconds(decision, layers, rows) < self._round_seconds(decision, before, rows):
                tails.append(Tail(rows, layers))
        return msgspec.structs.replace(decision, tails=tuple(tails))

    def _round_seconds(self, decision: Decision, layers: tuple[LayerPlacement, ...], rows: int) -> float:
        """A round that follows one like it: from an empty ring, streaming would look worse than it is."""
        alone = msgspec.structs.replace(decision, layers=layers, tails=())
        return RoundPricer(self.case, alone).steady(RoundShape(float(rows), self.context))

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
        key = (policy.in_flight, policy.batch, draft, policy.chunk_tokens)
        if key not in self._transition_loads:
            lengths = self.lengths[: policy.in_flight].tolist()
            graph = lower_transition(self.case, policy.gamma, draft, lengths, policy.chunk_tokens)
            self._transition_loads[key] = measure(graph, self.case.machine, waiting_loads=True)
        return self._transition_loads[key]

    # step 3: the simulated job

    def simulate(self, decision: Decision, *, grid: float = SEARCH_GRID) -> JobResult:
        return simulate_job(self.case, decision, grid=grid)

    # several devices

    def _over_devices(self, candidate: Candidate) -> Placed | None:
        """Every stage placed as a case of its own; stages that are alike are placed alike."""
        policy, placed = candidate.policy, []
        alike: dict[Any, Placed | None] = {}
        for stage in stages(self.case, policy, busy=True):
            own = (stage.case.target, stage.first)
            key = (*own, policy.devices, policy.tensor)
            if key not in self._devices:
                self._devices[key] = Evaluator(stage.case, self.fixed, self.sift, stage.first, policy.tensor)
            if own not in alike:
                alike[own] = self._devices[key].place(candidate)
            one = alike[own]
            if one is None:
                return None
            placed.append(one)
        weights = self.weights(policy)
        return together(candidate, placed, weights.rounds, weights.prefills, weights.sweeps)

    def _here(self, loads: PassLoads) -> PassLoads:
        """Without what only the first device does in a pass, on another one."""
        return loads if self.first else replace(loads, base=Loads({}, 0.0))

    # loads that candidates share

    def verify_loads(self, strategy: str, policy: Policy, rows: float, joining: float = 0.0) -> PassLoads:
        """Loads of a verify pass with `rows` sequences in each batch, and `joining` prompt tokens in all of them."""
        shape = decode_shape(rows, policy.gamma + 1, self.context, self.case.target.sliding_window)
        tokens = joining / policy.batches
        shape += PassShape(0.0, tokens, tokens * (self.context + 1) / 2, 0.0, 0.0)
        batches = 1 if strategy == "interleaved" else policy.batches
        routed = policy.expert_fetch == "routed"
        numbers = policy.verify_micro_batches, policy.part_bytes, routed, self.tensor, policy.chunk_tokens
        option = PassOption("verify", batches, *numbers)
        return self._pass_loads(option, shape, policy)

    def prefill_loads(self, policy: Policy) -> PassLoads:
        shape = prefill_shape(self.lengths[: policy.prefill_batch].tolist(), self.case.target.sliding_window)
        numbers = policy.prefill_micro_batches, policy.part_bytes, False, self.tensor, policy.chunk_tokens
        option = PassOption("prefill", 1, *numbers)
        return self._pass_loads(option, shape, policy)

    def _pass_loads(self, option: PassOption, shape: PassShape, policy: Policy) -> PassLoads:
        args = self.attention(policy), self.parts(policy)
        key = (option, shape, *args)
        if key not in self._loads:
            self._loads[key] = pass_loads(self.case, option, shape, *args)
        return self._loads[key]
