"""Placement by integer programming: how many layers and parts get each choice, and how the draft runs.

Layers with the same kind of FFN are interchangeable, so the program counts them instead of naming them: a few dozen
integers whatever the model's depth. It minimises (prefills x prefill time) + (rounds x round time), where a pass takes
at least the load of every pool and its own chain of dependent work, under every memory's budget in every phase.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import msgspec

from specsim.decision import MEMORY_OF, AttentionPlacement, Decision, LayerPlacement, PartPlacement
from specsim.memory import (
    PHASES,
    PINNABLE,
    Peaks,
    draft_items,
    fixed_items,
    kv_layer_bytes,
    kv_staging_bytes,
    ring_bytes,
    totals,
)
from specsim.model import FeedForward
from specsim.partition import LayerUnits, layer_units
from specsim.planner.assignment import spread
from specsim.planner.classes import LayerClass, Row, class_rows, layer_classes, worthwhile
from specsim.planner.options import Loads, PassLoads
from specsim.planner.problem import PlacementProblem
from specsim.planner.solver import NOTHING, Program, Term, Variable

GB = 1e9  # coefficients in gigabytes keep the program well scaled


class PlacementProgram:
    """The program and its variables."""

    def __init__(self, problem: PlacementProblem, *, elastic: bool) -> None:
        self.problem, self.program = problem, Program()
        self.elastic = elastic
        self.slack: dict[tuple[str, str], Variable] = {}
        p, target = self.program, problem.case.target
        self.kinds = target.ffn_kinds
        self.layers: dict[LayerClass, Variable] = {}
        self.attention: dict[LayerClass, dict[AttentionPlacement, Variable]] = {}
        self.parts: dict[LayerClass, dict[PartPlacement, Variable]] = {}
        for kind, layers in self.kinds.items():
            choices = problem.attention, problem.parts
            classes = layer_classes(self.units(kind).parts, *choices, kind, whole=problem.whole_layers)
            rows = {k: self._rows(k, problem.verify) for k in classes}
            classes = worthwhile(rows, self._shares(), problem.most_classes)
            for k in classes:
                self.layers[k] = p.integer(layers)
                self.attention[k] = {a: p.integer(layers) for a in k.attention}
                self.parts[k] = {part: p.integer(layers * k.size) for part in k.parts}
                self._fill(k)
            p.equal([(1.0, self.layers[k]) for k in classes], layers)
        self.drafts = [p.integer(1) for _ in problem.drafts]
        if self.drafts:
            p.equal([(1.0, v) for v in self.drafts], 1)
        self._memory()
        self._time()

    def units(self, kind: FeedForward) -> LayerUnits:
        return layer_units(self.problem.case.target, kind, self.problem.policy.part_bytes)

    def _shares(self) -> dict[str, float]:
        """Roughly which share of the weights each home will hold: the fast memory first, then RAM, then the disk."""
        case, weights = self.problem.case, float(self.problem.case.target.weight_bytes)
        budgets, fast = case.machine.budgets(), case.machine.fast
        fixed = totals(fixed_items(case, self.problem.policy, first=self.problem.first))["decode"][fast]
        fixed += ring_bytes(case, self.problem.policy)
        draft = float(case.draft.weight_bytes) if case.draft is not None and self.problem.policy.gamma else 0.0
        held = min(1.0, max(0.0, budgets[fast] - fixed - draft) / weights)
        if fast == "ram":
            return {"ram": held, "disk": 1.0 - held}
        pinned = min(1.0 - held, PINNABLE * budgets["ram"] / weights)
        pageable = min(1.0 - held - pinned, (1.0 - PINNABLE) * budgets["ram"] / weights)
        return {"vram": held, "pinned": pinned, "pageable": pageable, "disk": 1.0 - held - pinned - pageable}

    def _rows(self, k: LayerClass, loads: PassLoads) -> list[Row]:
        problem = self.problem
        return class_rows(k, loads, problem.attention, problem.parts, problem.policy.ring_slots)

    def _fill(self, k: LayerClass) -> None:
        """Every layer of the class has one attention and all its parts, `cpu_parts` of them on the CPU."""
        p = self.program
        p.equal([*((1.0, v) for v in self.attention[k].values()), (-1.0, self.layers[k])], 0.0)
        p.equal([*((1.0, v) for v in self.parts[k].values()), (-float(k.size), self.layers[k])], 0.0)
        on_cpu = [(1.0, v) for part, v in self.parts[k].items() if part.processor == "cpu"]
        if on_cpu and k.cpu_parts < k.size:
            p.equal([*on_cpu, (-float(k.cpu_parts), self.layers[k])], 0.0)

    def _classes(self, kind: FeedForward) -> list[LayerClass]:
        return [k for k in self.layers if k.kind == kind]

    # time

    def _time(self) -> None:
        """Rows of the form: time >= load of a pool, time >= chain."""
        problem, p = self.problem, self.program
        round_time, prefill_time = p.real(), p.real()
        drafting = [choice.drafting for choice in problem.drafts]
        if problem.strategy == "interleaved":
            # Per slot, drafting for one batch and verifying the other load the same pools; that a CPU's streams take
            # turns, and so wait for each other, only the simulator sees.
            slot = p.real()
            self._pass_takes(slot, problem.verify, drafting)
            self._draft_takes(slot, drafting, 1.0)
            p.at_most([(float(problem.slots), slot), (-1.0, round_time)], 0.0)
        else:
            verify_time, draft_time = p.real(), p.real()
            self._pass_takes(verify_time, problem.verify, ())
            self._draft_takes(draft_time, drafting, float(problem.policy.batches))
            p.at_most([(1.0, verify_time), (1.0, draft_time), (-1.0, round_time)], 0.0)
        sweep, transition = p.real(), p.real()
        self._pools_take(sweep, problem.prefill)
        self._draft_takes(transition, [choice.transition for choice in problem.drafts], 1.0)
        p.at_most([(float(problem.sweeps), sweep), (1.0, transition), (-1.0, prefill_time)], 0.0)
        self.round_time, self.prefill_time = round_time, prefill_time
        self.seconds: list[Term] = [(problem.rounds, round_time), (problem.prefills, prefill_time)]
        p.minimise([(1.0, v) for v in self.slack.values()] if self.elastic else self.seconds + self._work())

    def _work(self) -> list[Term]:
        """All loads of all rounds, as far as thrift weighs them: of placements that take equally long, the one that
        works least is the faster one when rounds get smaller."""
        problem, terms = self.problem, []
        weight = problem.thrift * problem.rounds
        for k in self.layers if weight else ():
            attention = zip(problem.attention, problem.verify.attention[k.kind], strict=True)
            terms += [(weight * sum(x.pools.values()), self.attention[k][a]) for a, x in attention if a in k.attention]
            parts = zip(problem.parts, problem.verify.parts[k.kind], strict=True)
            terms += [(weight * sum(x.pools.values()), self.parts[k][part]) for part, x in parts if part in k.parts]
        return terms

    def _pass_takes(self, time: Variable, loads: PassLoads, beside: Sequence[Loads]) -> None:
        """A pass takes at least the sum of its classes' times, and every pool's load with what runs `beside` it."""
        class_times: list[Term] = []
        for k, layers in self.layers.items():
            class_time = self.program.real()
            class_times.append((1.0, class_time))
            for row in self._rows(k, loads):
                terms = [(row.attention[a], v) for a, v in self.attention[k].items()]
                terms += [(row.parts[part], v) for part, v in self.parts[k].items()]
                self.program.at_most([*terms, (row.layer, layers), (-1.0, class_time)], 0.0)
        self.program.at_most([*class_times, (-1.0, time)], -max(loads.base.pools.values(), default=0.0))
        if beside:
            self._pools_take(time, loads, beside)

    def _pools_take(self, time: Variable, loads: PassLoads, beside: Sequence[Loads] = ()) -> None:
        """`time` is at least every pool's load by the whole pass and by what runs beside it."""
        problem = self.problem
        choices = chain.from_iterable((*loads.attention[kind], *loads.parts[kind]) for kind in self.kinds)
        for name in sorted(set(loads.base.pools).union(*(load.pools for load in choices))):
            terms: list[Term] = []
            for k in self.layers:
                for choice, load in zip(problem.attention, loads.attention[k.kind], strict=True):
                    if choice in self.attention[k] and name in load.pools:
                        terms.append((load.pools[name], self.attention[k][choice]))
                for part, load in zip(problem.parts, loads.parts[k.kind], strict=True):
                    if part in self.parts[k] and name in load.pools:
                        terms.append((load.pools[name], self.parts[k][part]))
            terms += [(x.pools[name], v) for x, v in zip(beside, self.drafts, strict=False) if name in x.pools]
            self.program.at_most([*terms, (-1.0, time)], -loads.base.pools.get(name, 0.0))

    def _draft_takes(self, time: Variable, loads: Sequence[Loads], times: float) -> None:
        """`time` is at least the load of every pool, and at least the chain, of drafting `times` times."""
        for name in sorted(set().union(*(load.pools for load in loads))):
            terms = [(load.pools.get(name, 0.0) * times, v) for load, v in zip(loads, self.drafts, strict=True)]
            self.program.at_most([*terms, (-1.0, time)], 0.0)
        terms = [(load.chain * times, v) for load, v in zip(loads, self.drafts, strict=True)]
        self.program.at_most([*terms, (-1.0, time)], 0.0)

    # memory

    def _memory(self) -> None:
        problem, p = self.problem, self.program
        case, policy = problem.case, problem.policy
        fixed = totals(fixed_items(case, policy, first=problem.first))
        drafts: list[Peaks] = [draft_items(case, policy, choice.policy) for choice in problem.drafts]
        by_draft = [totals(items) for items in drafts]
        kv, staging = kv_layer_bytes(case, policy), kv_staging_bytes(case, policy)
        budgets = case.machine.budgets()
        streams_kv = self._switch(lambda a: a.kv == "ram" and case.machine.gpu is not None, lambda _: False)
        reads_disk = self._switch(
            lambda a: a.weights == "disk" and case.machine.gpu is not None,
            lambda part: part.weights == "disk" and case.machine.gpu is not None,
        )
        ring, streams = ring_bytes(case, policy), None
        if self._may_stay(fixed):

            def elsewhere(place: AttentionPlacement | PartPlacement) -> bool:
                return MEMORY_OF[place.weights] != case.machine.fast

            streams = self._switch(elsewhere, elsewhere)
        else:  # so that the program is no larger where the answer is known
            for phase in PHASES:
                fixed[phase][case.machine.fast] += ring
        for phase in PHASES:
            for memory, budget in budgets.items():
                terms = self._bytes(memory, kv)
                terms += [(items[phase][memory] / GB, v) for items, v in zip(by_draft, self.drafts, strict=True)]
                if memory == "vram" and streams_kv is not None:
                    terms.append((staging / GB, streams_kv))
                if memory == case.machine.fast and streams is not None:
                    terms.append((ring / GB, streams))
                if memory == "ram" and reads_disk is not None:
                    terms.append((ring / GB, reads_disk))
                if self.elastic:
                    self.slack[phase, memory] = p.real()
                    terms.append((-1.0, self.slack[phase, memory]))
                p.at_most(terms, (budget - fixed[phase][memory]) / GB)
        if case.machine.gpu is not None:
            p.at_most(self._pinned(kv), PINNABLE * budgets["ram"] / GB)

    def _may_stay(self, fixed: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether all weights may fit in the fast memory, so that there is no ring."""
        fast = self.problem.case.machine.fast
        room = max(self.problem.case.machine.budgets()[fast] - taken[fast] for taken in fixed.values())
        units = [(n, self.units(kind)) for kind, n in self.kinds.items()]
        return sum(n * (unit.attention_held + unit.parts * unit.part_held) for n, unit in units) <= room

    def _bytes(self, memory: str, kv: float) -> list[Term]:
        terms: list[Term] = []
        for k in self.layers:
            units = self.units(k.kind)
            for place, v in self.attention[k].items():
                size = units.attention_held * (MEMORY_OF[place.weights] == memory) + kv * (place.kv == memory)
                terms.append((size / GB, v))
            for part, v in self.parts[k].items():
                terms.append((units.part_held * (MEMORY_OF[part.weights] == memory) / GB, v))
        return terms

    def _pinned(self, kv: float) -> list[Term]:
        """Page-locked RAM: pinned weights, and the caches that the GPU streams."""
        terms: list[Term] = []
        for k in self.layers:
            units = self.units(k.kind)
            terms += [(kv / GB, v) for a, v in self.attention[k].items() if (a.processor, a.kv) == ("gpu", "ram")]
            terms += [(units.attention_held / GB, v) for a, v in self.attention[k].items() if a.weights == "pinned"]
            terms += [(units.part_held / GB, v) for part, v in self.parts[k].items() if part.weights == "pinned"]
        return terms

    def _switch(
        self, attention: Callable[[AttentionPlacement], bool], parts: Callable[[PartPlacement], bool]
    ) -> Variable | None:
        """A 0/1 variable that is 1 as soon as any choice with the property is taken."""
        taken: list[Variable] = []
        for k in self.layers:
            taken += [v for a, v in self.attention[k].items() if attention(a)]
            taken += [v for part, v in self.parts[k].items() if parts(part)]
        if not taken:
            return None
        switch = self.program.integer(1)
        most = sum(n * (1 + self.units(kind).parts) for kind, n in self.kinds.items())
        self.program.at_most([*((1.0, v) for v in taken), (-float(most), switch)], 0.0)
        return switch

    # answer

    def unused(self) -> list[Variable]:
        """All variables of the classes that the last solution leaves without a layer."""
        empty = [k for k, layers in self.layers.items() if self.program.value(layers) < NOTHING]
        return [v for k in empty for v in (self.layers[k], *self.attention[k].values(), *self.parts[k].values())]

    def decision(self) -> Decision:
        """The counts dealt to layers."""
        problem, target = self.problem, self.problem.case.target
        hands = {kind: iter(self._deal(kind)) for kind in self.kinds}
        layers = tuple(next(hands[target.layer_ffn(layer)]) for layer in range(target.layers))
        chosen = [choice.policy for choice, v in zip(problem.drafts, self.drafts, strict=True) if self.program.count(v)]
        policy = msgspec.structs.replace(problem.policy, draft=chosen[0] if chosen else None)
        return Decision(problem.strategy, policy, layers)  # type: ignore[arg-type]

    def _deal(self, kind: FeedForward) -> list[LayerPlacement]:
        """Classes alternate along the depth; within one, every layer has about the same mix of homes."""
        classes = {k: self.program.count(self.layers[k]) for k in self._classes(kind)}
        hands = {k: iter(self._deal_class(k, layers)) for k, layers in classes.items()}
        return [next(hands[k]) for (k,) in spread(classes, self.kinds[kind], 1)]

    def _deal_class(self, k: LayerClass, layers: int) -> list[LayerPlacement]:
        if not layers:
            return []
        attention = {a: self.program.count(v) for a, v in self.attention[k].items()}
        on: dict[str, dict[PartPlacement, int]] = {"gpu": {}, "cpu": {}}
        for part, v in self.parts[k].items():
            on[part.processor][part] = self.program.count(v)
        # Every layer of the class has the same number of parts on each processor.
        hands = [spread(counts, layers, sum(counts.values()) // layers) for counts in on.values()]
        cores = spread(attention, layers, 1)
        return [LayerPlacement(a, gpu + cpu) for (a,), gpu, cpu in zip(cores, *hands, strict=True)]
