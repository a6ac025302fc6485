"""Who takes part in a pass, and what its logits decide: what the tasks ask for when their turn comes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from executor.architecture import Architecture
from executor.batches import Batches
from executor.decoder import blocks
from executor.decoder.numerics import Numerics, argmax
from executor.passes import Pass, pack
from executor.sequence import Sequence
from executor.speculation.verify import Proposal, require_finite, verify, verify_greedy
from executor.weights import HeadWeights
from specsim.decision import Decision, LayerPlacement
from specsim.positions import logits_rows
from specsim.schedule.graph import TaskName
from specsim.schedule.passes import on_main
from specsim.schedule.round import RoundShape


@dataclass(slots=True, eq=False)
class Floor:
    """Opens and closes passes. The owner says beforehand who is in each prefill sweep (`sweeps`) and which placement a
    round was lowered with (`placements`); `shapes` are what this wave's rounds turned out to be."""

    decision: Decision
    main: str
    batches: Batches
    arch: Architecture
    numerics: Numerics
    head: HeadWeights
    sweeps: dict[int, list[Sequence]] = field(default_factory=dict)
    placements: dict[int, tuple[LayerPlacement, ...]] = field(default_factory=dict)
    shapes: dict[int, RoundShape] = field(default_factory=dict)

    def open_pass(self, name: TaskName) -> Pass:
        policy = self.decision.policy
        if name.phase == "prefill":
            layers = on_main(self.decision.layers, self.main)
            return pack(layers, self.sweeps.pop(name.round), policy.prefill_micro_batches)
        sequences = self.batches.active[name.batch]
        self._note(name.round, sequences)
        return pack(self.placements[name.round], sequences, policy.verify_micro_batches)

    def _note(self, number: int, sequences: list[Sequence]) -> None:
        """Add a batch to what its round turned out to be."""
        old = [s for s in sequences if not s.fresh and not s.restoring]
        if sequences:
            known = self.shapes.get(number, RoundShape(0.0, 0.0))
            rows = known.rows + len(old)
            context = known.rows * known.context + sum(s.cache.length for s in old)
            joining = known.joining + sum(len(s.feed) for s in sequences if s.fresh or s.restoring)
            self.shapes[number] = RoundShape(rows, context / rows if rows else 0.0, joining)

    def sequences_of(self, name: TaskName) -> list[Sequence]:
        """Who takes part in a visit of the draft."""
        if name.phase == "transition":
            return [s for s in self.batches.in_flight if not s.done]
        return list(self.batches.active[name.batch])

    def live(self, name: TaskName) -> bool:
        """Whether weights that a visit asks for may be used: once they may not, they will not be."""
        return name.phase == "prefill" or self.batches.may_serve(name.round, name.batch)

    def close_pass(self, name: TaskName, p: Pass) -> None:
        """Logits for the rows that decide, a few sequences at a time; what they decide is committed."""
        chunk: list[tuple[Sequence, range]] = []
        rows, most = 0, logits_rows(self.decision.policy)
        for sequence, wanted in zip(p.sequences, p.head_rows, strict=True):
            if not wanted:
                self._commit(sequence, (), 0)
                continue
            if rows + len(wanted) > most and chunk:
                self._decide(p, chunk)
                chunk, rows = [], 0
            chunk.append((sequence, wanted))
            rows += len(wanted)
        if chunk:
            self._decide(p, chunk)
        self.batches.end_pass(name)

    def _decide(self, p: Pass, chunk: list[tuple[Sequence, range]]) -> None:
        rows = torch.tensor([row for _, wanted in chunk for row in wanted], device=p.hidden.device)
        logits = blocks.logits(self.arch, self.numerics, self.head, p.hidden[rows])
        require_finite(logits, [s.index for s, wanted in chunk for _ in wanted])
        choices = argmax(logits).tolist() if any(s.sampling.greedy for s, _ in chunk) else []
        first = 0
        for sequence, wanted in chunk:
            mine = slice(first, first + len(wanted))
            if sequence.sampling.greedy:
                verdict = verify_greedy(choices[mine], sequence.proposal.tokens)
            else:
                position, proposal = len(sequence.tokens), sequence.proposal
                if proposal.probs is not None:  # the draft may have its own device
                    proposal = Proposal(proposal.tokens, proposal.probs.to(logits.device))
                verdict = verify(logits[mine], proposal, sequence.sampling, sequence.key, position)
            self._commit(sequence, verdict.tokens, verdict.accepted)
            first += len(wanted)

    def _commit(self, sequence: Sequence, emitted: tuple[int, ...], accepted: int) -> None:
        self.batches.commit(sequence, emitted, accepted)
        if sequence.ngram is not None and not sequence.done:
            gamma = self.decision.policy.gamma
            sequence.proposal = Proposal(sequence.ngram.propose(sequence.candidates(gamma)))
