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
        for memory, item, size in self._sizes(request):
            self.ledger.take(memory, item, size)
        capacity = len(request.prompt) + request.max_new_tokens
        kv = [place.attention.kv for place in self.decision.layers]
        cache = SequenceCache(self.target, capacity, [self.devices.of("gpu") if home == "vram" else CPU for home in kv])
        generation = Generation(request, self.decode)
        policy = self.decision.policy
        if self.draft is None or policy.draft is None:
            return Sequence(generation, cache, ngram=NgramIndex(request.prompt) if policy.gamma else None)
        if policy.draft.kv == "none":
            return Sequence(generation, cache)
        home = self.devices.of("gpu") if policy.draft.kv == "vram" else CPU
        return Sequence(generation, cache, SequenceCache(self.draft, capacity, home))

    def release(self, sequence: Sequence) -> None:
        for memory, item, size in self._sizes(sequence.generation.request):
            self.ledger.give_back(memory, item, size)

    def _sizes(self, request: Request) -> Iterator[tuple[str, str, int]]:
        """Memory, item and bytes of a request's caches."""
        capacity = len(request.prompt) + request.max_new_tokens
        layer = capacity * self.target.model.kv_bytes_per_token_layer
        kv = [place.attention.kv for place in self.decision.layers]
        for memory in sorted(set(kv)):
            yield memory, "kv", layer * kv.count(memory)
        policy = self.decision.policy.draft
        if self.draft is not None and policy is not None and policy.kv != "none":
            model = self.draft.model
            yield policy.kv, "draft kv", capacity * model.layers * model.kv_bytes_per_token_layer
