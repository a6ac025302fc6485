"""Requests come and go: each gets caches as long as its own prompt and output, and gives them back when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from executor.architecture import Architecture
from executor.decoder.cache import SequenceCache
from executor.devices import CPU, Devices
from executor.memory import Ledger
from executor.requests import Decode, Generation, Request
from executor.sequence import Sequence
from executor.speculation.ngram import NgramIndex
from specsim.decision import Decision


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """`draft` is None where no model drafts; `decode` is the tokenizer's, None where there is none."""

    decision: Decision
    target: Architecture
    draft: Architecture | None
    devices: Devices
    ledger: Ledger
    decode: Decode | None

    def admit(self, request: Request) -> Sequence:
        """Raises InputError where a memory's budget has no room for the caches."""
        capacity = len(request.prompt) + request.max_new_tokens
        for memory, item, size in self._sizes(capacity):
            self.ledger.take(memory, item, size)
        kv = [place.attention.kv for place in self.decision.layers]
        cache = SequenceCache(self.target, capacity, [self.devices.of("gpu") if home == "vram" else CPU for home in kv])
        generation = Generation(request, self.decode)
        policy = self.decision.policy
        from_text = policy.gamma and (self.draft is None or policy.draft is None)
        return Sequence(generation, cache, ngram=NgramIndex(request.prompt) if from_text else None)

    def admit_draft(self, sequence: Sequence) -> None:
        """Give a sequence the draft's own cache, where it keeps one: only now, as the prefill needs the room."""
        policy = self.decision.policy.draft
        if sequence.draft_cache is not None or self.draft is None or policy is None or policy.kv == "none":
            return
        capacity = sequence.cache.capacity
        self.ledger.take(policy.kv, "draft kv", self._draft_bytes(capacity))
        home = self.devices.of("gpu") if policy.kv == "vram" else CPU
        sequence.draft_cache = SequenceCache(self.draft, capacity, home)

    def release(self, sequence: Sequence) -> None:
        for memory, item, size in self._sizes(sequence.cache.capacity):
            self.ledger.give_back(memory, item, size)
        policy = self.decision.policy.draft
        if sequence.draft_cache is not None and policy is not None:
            self.ledger.give_back(policy.kv, "draft kv", self._draft_bytes(sequence.cache.capacity))

    def _draft_bytes(self, capacity: int) -> int:
        assert self.draft is not None
        return capacity * self.draft.model.layers * self.draft.model.kv_bytes_per_token_layer

    def _sizes(self, capacity: int) -> Iterator[tuple[str, str, int]]:
        """Memory, item and bytes of a request's cache."""
        layer = capacity * self.target.model.kv_bytes_per_token_layer
        kv = [place.attention.kv for place in self.decision.layers]
        for memory in sorted(set(kv)):
            yield memory, "kv", layer * kv.count(memory)
