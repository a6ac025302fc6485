"""Requests come and go: each gets caches that grow with it, as far as there is room, and gives them back at its end."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from executor.architecture import Architecture
from executor.decoder.cache import KvArena, SequenceCache
from executor.detokenizer import Decode
from executor.devices import CPU, Devices
from executor.kept import LEAST_TOKENS, Entry, Kept
from executor.memory import Ledger
from executor.ranks.messages import Room
from executor.ranks.stage import Stage
from executor.requests import Generation, Request
from executor.sequence import Sequence
from executor.speculation.ngram import NgramIndex
from specsim.attending import KV_BLOCK
from specsim.decision import Decision, Policy
from specsim.errors import InputError
from specsim.simulator.lengths import DraftLengths, Pace


@dataclass(slots=True, eq=False)
class Admission:
    """`draft` is None where no model drafts; `decode` is the tokenizer's, None where there is none; `lengths` are for
    draft lengths that follow what is measured, None for the plan's.

    A cache takes places in steps: all that its request may need where there is room for that, else blocks as it grows.
    A block is as long as what attends at once, so that what a pass reads of a cache lies together. The draft keeps what
    it has cached in the same places of an arena of its own, so that a place is found for both or for neither. Places
    are taken and given back by the thread that decides who is in flight.
    """

    decision: Decision
    stage: Stage
    target: Architecture
    draft: Architecture | None
    devices: Devices
    ledger: Ledger
    decode: Decode | None
    lengths: DraftLengths | None = None
    places: int = 0  # in either arena
    step: int = KV_BLOCK  # by which caches grow
    arena: KvArena | None = None
    #: there from the draft's prefill until its last sequence leaves, as the target's prefills need the room
    draft_arena: KvArena | None = None
    kept: Kept | None = None  # of requests that have ended, where others may begin alike
    _drafting: int = 0  # sequences with places in it, kept ones too
    _lock: threading.Lock = field(default_factory=threading.Lock)  # guards both: drafts have threads of their own

    def expect(self, requests: Iterable[Request]) -> None:
        """Make room on all ranks for any of these at a time that may be in flight, or as much as the policy allows.
        Raises InputError where a memory's budget has none, and for a request that will never fit."""
        waiting = list(requests)
        policy = self.decision.policy
        check_fit(waiting, policy)
        self.reserve(map(_capacity, waiting))

    def reserve(self, capacities: Iterable[int]) -> None:
        """Likewise, of requests that need so many positions at most each."""
        policy = self.decision.policy
        longest = heapq.nlargest(policy.in_flight, capacities)
        self.places = sum(longest)
        self.step = max(longest, default=0)
        if policy.kv_positions is not None and policy.kv_positions < self.places:
            self.places, self.step = policy.kv_positions, KV_BLOCK
        self.arena = room(self.decision, self.stage.layers, self.target, self.places, self.devices, self.ledger)
        self.stage.announce(Room(self.places))

    def fits(self, request: Request) -> bool:
        """Whether there is room for what the request has now and for its next round."""
        return self._available >= self._at_first(request)

    def admit(self, request: Request) -> Sequence:
        generation = Generation(request, self.decode)
        policy = self.decision.policy
        from_text = policy.gamma and (self.draft is None or policy.draft is None)
        ngram = NgramIndex(generation.tokens) if from_text else None
        pace = Pace(self.lengths, request.seen) if self.lengths is not None else None
        sequence = Sequence(generation, *self._caches(generation), ngram=ngram, pace=pace)
        generation.reused = min(sequence.cache.length, len(request.prompt))
        return sequence

    def _caches(self, generation: Generation) -> tuple[SequenceCache, SequenceCache | None]:
        """Of a request: new ones, or one that was kept of another that began alike, as far as it did."""
        request, needed = generation.request, self._at_first(generation.request)
        # The first pass has a token to feed at least; where output of before is read again, it decides nothing.
        known = generation.tokens[: -2 if request.committed else -1]
        found = self.kept.claim(known) if self.kept is not None else None
        if found is None:
            return self._arena.take(self._room(request, needed, 0)), None
        entry, alike = found
        for cache in filter(None, (entry.cache, entry.draft_cache)):
            cache.length = min(cache.length, alike)
        capacity = entry.cache.capacity
        if needed > capacity:
            self._arena.grow(entry.cache, self._room(request, needed, capacity))
        elif _capacity(request) < capacity:
            self._arena.shrink(entry.cache, _capacity(request))
        return entry.cache, entry.draft_cache

    def grow(self, sequence: Sequence) -> bool:
        """Make room for the next round of a sequence; False where there is none."""
        capacity, request = sequence.cache.capacity, sequence.generation.request
        needed = len(sequence.tokens) + sequence.candidates(self.decision.policy.gamma)
        if needed - capacity > self._available:
            return False
        if needed > capacity:
            self._arena.grow(sequence.cache, self._room(request, needed, capacity))
        return True

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
                    self.draft_arena = KvArena.empty(self.draft, self.places, home, self._arena.pool)
            sequence.draft_cache = SequenceCache(self.draft_arena, sequence.cache.room)
            self._drafting += 1

    def release(self, sequence: Sequence) -> None:
        """It has ended, or has to wait: its places may be taken again. What one that has ended has cached stays there
        until they are, if that is asked for."""
        entry = Entry(tuple(sequence.tokens[: sequence.cache.length]), sequence.cache, sequence.draft_cache)
        if self.kept is None or not sequence.done or len(entry.tokens) < LEAST_TOKENS:
            self._give_back(entry)
            return
        self._arena.shrink(entry.cache, entry.cache.length)
        self.kept.keep(entry)

    def before_prefill(self) -> None:
        """Where its temporaries need the room of the draft's caches, none of those is kept."""
        if self.kept is None or self.draft_arena is None or self.ledger.fits("prefill"):
            return
        for entry in self.kept.entries:
            self._give_back_draft(entry)

    def keep(self) -> None:
        """From now on keep the caches of requests that end."""
        self.kept = Kept(self._give_back)

    def keep_no_more(self) -> None:
        """Nor what has been kept."""
        while self.kept is not None and self.kept.evict():
            pass
        self.kept = None

    @property
    def free(self) -> int:
        """Places that are neither of a request in flight nor kept."""
        return self._arena.pool.free

    @property
    def _available(self) -> int:
        return self.free + (self.kept.positions if self.kept is not None else 0)

    def _give_back(self, entry: Entry) -> None:
        self._arena.give_back(entry.cache)
        self._give_back_draft(entry)

    def _give_back_draft(self, entry: Entry) -> None:
        policy = self.decision.policy.draft
        if entry.draft_cache is None or policy is None:
            return
        with self._lock:
            entry.draft_cache = None
            self._drafting -= 1
            if not self._drafting:
                self.draft_arena = None
                self.ledger.give_back(policy.kv, "draft kv", self._draft_bytes)

    @property
    def _arena(self) -> KvArena:
        assert self.arena is not None, "requests are expected before they are admitted"
        return self.arena

    @property
    def _draft_bytes(self) -> int:
        """Of the draft's arena."""
        assert self.draft is not None
        return self.places * self.draft.model.layers * self.draft.model.kv_bytes_per_token_layer

    def _at_first(self, request: Request) -> int:
        """Positions that a request is admitted with: for its next pass and the round after that, so that it gains a
        token before it may have to go again, even if that pass only restores what it had."""
        known = len(request.prompt) + len(request.committed)
        return min(_capacity(request), known + 1 + self.decision.policy.gamma)

    def _room(self, request: Request, needed: int, capacity: int) -> int:
        """Positions to take where at least `needed` are: up to a whole step, as far as they are free and of use."""
        whole = min(_capacity(request), -(-needed // self.step) * self.step)
        while self._arena.pool.free < whole - capacity and self.kept is not None and self.kept.evict():
            pass  # what is kept goes first
        return max(needed, min(whole, capacity + self._arena.pool.free)) - capacity


def check_fit(requests: Iterable[Request], policy: Policy) -> None:
    """Raise InputError for the first request that the policy's caches have no room for, even alone."""
    for request in requests:
        if policy.kv_positions is not None and _capacity(request) > policy.kv_positions:
            needed = f"{len(request.prompt)} prompt tokens and {request.max_new_tokens} new ones"
            hint = f"allow for at least {_capacity(request)} with --kv"
            what = f"{needed} may need more than the {policy.kv_positions} positions that all caches have"
            raise InputError(what, where=request.where, hint=hint)


def room(
    decision: Decision, layers: range, arch: Architecture, places: int, devices: Devices, ledger: Ledger
) -> KvArena:
    """Caches for the target's `layers`, each in its home; those of other layers are on device "meta": a shape, and no
    memory. Raises InputError where a budget is too small."""
    kv = [decision.layers[layer].attention.kv for layer in layers]
    for memory in sorted(set(kv)):
        ledger.take(memory, "kv", places * arch.model.kv_bytes_per_token_layer * kv.count(memory))
    homes = [torch.device("meta")] * arch.model.layers
    homes[layers.start : layers.stop] = [devices.of("gpu") if home == "vram" else CPU for home in kv]
    return KvArena.empty(arch, places, homes)


def _capacity(request: Request) -> int:
    """Positions that a request needs at most."""
    return len(request.prompt) + request.max_new_tokens
