"""Requests come and go: each gets caches as long as its own prompt and output, and gives them back when it is done."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from executor.architecture import Architecture
from executor.decoder.cache import KvArena
from executor.devices import CPU, Devices
from executor.memory import Ledger
from executor.requests import Decode, Generation, Request
from executor.sequence import Sequence
from executor.speculation.ngram import NgramIndex
from specsim.decision import Decision


@dataclass(slots=True, eq=False)
class Admission:
    """`draft` is None where no model drafts; `decode` is the tokenizer's, None where there is none."""

    decision: Decision
    target: Architecture
    draft: Architecture | None
    devices: Devices
    ledger: Ledger
    decode: Decode | None
    places: int = 0  # in either arena
    arena: KvArena | None = None
    #: there from the draft's prefill until its last sequence leaves, as the target's prefills need the room
    draft_arena: KvArena | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards it: drafts have threads of their own

    def expect(self, requests: Iterable[Request]) -> None:
        """Make room for any of these at a time that may be in flight. Raises InputError where a memory's budget has
        none."""
        longest = heapq.nlargest(self.decision.policy.in_flight, map(_capacity, requests))
        self.places = sum(longest)
        kv = [place.attention.kv for place in self.decision.layers]
        for memory in sorted(set(kv)):
            layer = self.places * self.target.model.kv_bytes_per_token_layer
            self.ledger.take(memory, "kv", layer * kv.count(memory))
        devices = [self.devices.of("gpu") if home == "vram" else CPU for home in kv]
        self.arena = KvArena.empty(self.target, self.places, devices)

    def admit(self, request: Request) -> Sequence:
        assert self.arena is not None, "requests are expected before they are admitted"
        generation = Generation(request, self.decode)
        policy = self.decision.policy
        from_text = policy.gamma and (self.draft is None or policy.draft is None)
        ngram = NgramIndex(generation.tokens) if from_text else None
        return Sequence(generation, self.arena.take(_capacity(request)), ngram=ngram)

    def admit_draft(self, sequence: Sequence) -> None:
        """Give a sequence the draft's own cache, where it keeps one. Raises InputError where a memory's budget has no
        room for those of all."""
        policy = self.decision.policy.draft
        if sequence.draft_cache is not None or self.draft is None or policy is None or policy.kv == "none":
            return
        with self._lock:
            if self.draft_arena is None:
                home = self.devices.of("gpu") if policy.kv == "vram" else CPU
                with self.ledger.taking(policy.kv, "draft kv", self._draft_bytes):
                    self.draft_arena = KvArena.empty(self.draft, self.places, home)
            sequence.draft_cache = self.draft_arena.take(sequence.cache.capacity)

    def release(self, sequence: Sequence) -> None:
        sequence.cache.arena.give_back(sequence.cache)
        policy = self.decision.policy.draft
        if sequence.draft_cache is None or policy is None:
            return
        with self._lock:
            arena = sequence.draft_cache.arena
            arena.give_back(sequence.draft_cache)
            if arena.unused:
                self.draft_arena = None
                self.ledger.give_back(policy.kv, "draft kv", self._draft_bytes)

    @property
    def _draft_bytes(self) -> int:
        """Of the draft's arena."""
        assert self.draft is not None
        return self.places * self.draft.model.layers * self.draft.model.kv_bytes_per_token_layer


def _capacity(request: Request) -> int:
    """Positions that a request needs at most."""
    return len(request.prompt) + request.max_new_tokens
