"""The whole job: waves of requests, each prefilled in sweeps and decoded round by round, lowered as it goes.

The schedule of round n + 1 is lowered when round n begins, before anybody knows who will still be there: so the ring
fills with the next round's first weights while this one ends. What turns out to have nothing left to do, does nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from executor.batches import Batches
from executor.decoder import blocks
from executor.decoder.numerics import argmax
from executor.engine import Action, Engine
from executor.memory import Ledger
from executor.passes import Pass, pack
from executor.requests import Request
from executor.sequence import Sequence
from executor.speculation.sampling import Sampling
from executor.speculation.verify import Proposal, require_finite, verify, verify_greedy
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext
from executor.tasks.table import action
from executor.weights import HeadWeights
from specsim.answer import Plan
from specsim.decision import LayerPlacement
from specsim.memory import LOGITS_ROWS
from specsim.schedule.graph import TaskName, parse
from specsim.schedule.lower import NEXT_WAVE, append_prefill, append_round, builder
from specsim.schedule.passes import Deps, on_main
from specsim.schedule.round import RoundShape, RoundState


@dataclass(slots=True, eq=False)
class Wave:
    """What was done for one wave: prompt lengths, and the shapes of its rounds by number as they turned out. Enough to
    lower it once more."""

    lengths: list[int]
    first_sweep: int
    shapes: dict[int, RoundShape] = field(default_factory=dict)


class Job:
    """Drives an engine through a plan. `on_tick` is called a few times a second, and when a wave ends."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        batches: Batches,
        sampling: Sampling,
        head: HeadWeights,
        ledger: Ledger,
    ) -> None:
        self.plan, self.engine, self.batches, self.sampling, self.head = plan, engine, batches, sampling, head
        self.ledger = ledger
        self.on_tick: Callable[[], None] = lambda: None
        self.builder = builder(plan.decision)
        self.context: Context | None = None
        self.drafts: DraftContext | None = None
        self.waves: list[Wave] = []
        self.phase = "load"
        self.rounds = self.sweeps = 0
        self.prefill_s = self.decode_s = 0.0
        self._submitted = 0
        self._sweeps: dict[int, list[Sequence]] = {}
        self._placements: dict[int, tuple[LayerPlacement, ...]] = {}  # of a round
        self._prefill_layers = on_main(plan.decision.layers, plan.case.machine.main)

    # The owner's side: lowering

    def run(self, requests: Iterable[Request], on_tick: Callable[[], None] = lambda: None) -> None:
        """Serve all requests; `on_tick` is called a few times a second meanwhile, and when all is done.

        Raises the first error of any task.
        """
        self.on_tick = on_tick
        self.batches.waiting.extend(requests)
        while self.batches.waiting:
            self._wave()
        if self.batches.in_flight or self.batches.served != self.batches.done:
            raise RuntimeError(f"{self.batches.done} of {self.batches.served} requests have ended")

    def _wave(self) -> None:
        case, decision = self.plan.case, self.plan.decision
        policy = decision.policy
        sequences = self.batches.next_wave()
        wave = Wave([len(s.tokens) for s in sequences], self.sweeps)
        self.waves.append(wave)
        for first in range(0, len(sequences), policy.prefill_batch):
            self._sweeps[self.sweeps] = sequences[first : first + policy.prefill_batch]
            self.sweeps += 1
        self.phase = "prefill"
        started = time.perf_counter()
        ends = append_prefill(self.builder, case, decision, wave.lengths, (), wave.first_sweep)
        self._submit()
        state = RoundState.after(ends, self.plan.decision)
        this_round = self._lower_round(state)
        self.engine.wait(ends, self.on_tick)
        prefilled = time.perf_counter()
        self.prefill_s += prefilled - started
        self.phase = "decode"
        while self.batches.waiting_to_refill or self.batches.in_flight:  # in this order: who waited is in flight then
            next_round = self._lower_round(state)
            self.engine.wait(this_round, self.on_tick)
            this_round = next_round
        self.decode_s += time.perf_counter() - prefilled
        self.engine.drain(self.on_tick)  # of what was lowered ahead: the next wave takes the same places
        self.rounds += NEXT_WAVE - 1

    def _lower_round(self, state: RoundState) -> Deps:
        """Lower one more round for those who are there now; returns the tasks that end it."""
        sequences, number = self.batches.in_flight, self.rounds
        self.rounds += 1
        rows = max(1, len(sequences))
        context = sum(len(s.tokens) - 1 for s in sequences) / rows
        refills = self.batches.waiting_to_refill
        joining = self.plan.case.workload.prompt_tokens_mean if refills else 0.0
        shape = RoundShape(float(rows), max(1.0, context), joining)
        low = append_round(self.builder, self.plan.case, self.plan.decision, shape, number, state)
        self._placements[number] = low.layers()
        self._placements.pop(number - 3, None)  # at most two rounds are under way
        self._submit()
        return self.builder.round_ends[-1]

    def _submit(self) -> None:
        tasks = self.builder.tasks[self._submitted :]
        self._submitted = len(self.builder.tasks)
        assert self.context is not None
        names = [parse(task.name) for task in tasks]
        actions: list[Action] = [
            action(self.context, self.drafts, name, task) for name, task in zip(names, tasks, strict=True)
        ]
        self.engine.submit(tasks, actions)

    # The tasks' side: who takes part, and what logits decide

    def open_pass(self, name: TaskName) -> Pass:
        policy = self.plan.decision.policy
        if name.phase == "prefill":
            return pack(self._prefill_layers, self._sweeps.pop(name.round), policy.prefill_micro_batches)
        sequences = self.batches.active[name.batch]
        self._note(name.round, sequences)
        return pack(self._placements[name.round], sequences, policy.verify_micro_batches)

    def _note(self, number: int, sequences: list[Sequence]) -> None:
        """Add a batch to what its round turned out to be."""
        old = [s for s in sequences if s.cache.length]
        if sequences:
            known = self.waves[-1].shapes.get(number, RoundShape(0.0, 0.0))
            rows = known.rows + len(old)
            context = known.rows * known.context + sum(s.cache.length for s in old)
            joining = known.joining + sum(len(s.tokens) for s in sequences if not s.cache.length)
            self.waves[-1].shapes[number] = RoundShape(rows, context / rows if rows else 0.0, joining)

    def sequences_of(self, name: TaskName) -> list[Sequence]:
        """Who takes part in a visit of the draft."""
        if name.phase == "transition":
            return [s for s in self.batches.in_flight if not s.done]
        return list(self.batches.active[name.batch])

    def live(self, name: TaskName) -> bool:
        """Whether weights that a visit asks for will be used: a batch that is empty stays so, once nobody waits."""
        if name.phase == "prefill":
            return True
        return self.batches.waiting_to_refill or any(self.batches.active[batch] for batch in name.batch)

    def close_pass(self, name: TaskName, p: Pass) -> None:
        """Logits for the rows that decide, a few sequences at a time; what they decide is committed."""
        chunk: list[tuple[Sequence, range]] = []
        rows = 0
        for sequence, wanted in zip(p.sequences, p.head_rows, strict=True):
            if rows + len(wanted) > LOGITS_ROWS and chunk:
                self._decide(p, chunk)
                chunk, rows = [], 0
            chunk.append((sequence, wanted))
            rows += len(wanted)
        if chunk:
            self._decide(p, chunk)
        self.batches.sweep()
        if name.phase == "verify":
            self.batches.refill(name.batch)

    def _decide(self, p: Pass, chunk: list[tuple[Sequence, range]]) -> None:
        assert self.context is not None
        rows = torch.tensor([row for _, wanted in chunk for row in wanted], device=p.hidden.device)
        logits = blocks.logits(self.context.arch, self.context.numerics, self.head, p.hidden[rows])
        require_finite(logits, [s.index for s, wanted in chunk for _ in wanted])
        choices = argmax(logits).tolist() if self.sampling.greedy else []
        first = 0
        for sequence, wanted in chunk:
            mine = slice(first, first + len(wanted))
            if self.sampling.greedy:
                verdict = verify_greedy(choices[mine], sequence.proposal.tokens)
            else:
                position, proposal = len(sequence.tokens), sequence.proposal
                if proposal.probs is not None:  # the draft may have its own device
                    proposal = Proposal(proposal.tokens, proposal.probs.to(logits.device))
                verdict = verify(logits[mine], proposal, self.sampling, sequence.index, position)
            self.batches.commit(sequence, verdict.tokens, verdict.accepted)
            if sequence.ngram is not None and not sequence.done:
                gamma = self.plan.decision.policy.gamma
                sequence.proposal = Proposal(sequence.ngram.propose(sequence.candidates(gamma)))
            first += len(wanted)
