"""Who is in flight: requests wait in line, take places in batches, gain tokens pass by pass, and leave when done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue

from executor.metrics import AcceptanceCounter
from executor.requests import Generation, Request
from executor.sequence import Sequence
from specsim.decision import Policy


@dataclass(frozen=True, slots=True)
class Commit:
    """What a pass has decided for a request: the tokens that were kept, and how many were proposed and accepted."""

    request: int  # its index
    tokens: tuple[int, ...]
    proposed: int
    accepted: int


@dataclass(slots=True, eq=False)
class Batches:
    """`expect` makes room for requests, `admit` makes a sequence of one, with caches of its own, `release` lets them
    go; `record` hears of every commit, on the stream that makes it. `waiting` is served in order of arrival; `paused`,
    who keep their caches and have no place for now, go before them; `finished` is emptied by whoever writes the
    outputs.

    Only the main processor's stream commits and refills; others look on, and see nobody missing meanwhile.
    """

    policy: Policy
    join_tokens: float
    expect: Callable[[Iterable[Request]], None]
    admit: Callable[[Request], Sequence]
    release: Callable[[Sequence], None]
    record: Callable[[Commit], None] = lambda commit: None
    waiting: deque[Request] = field(default_factory=deque)
    paused: deque[Sequence] = field(default_factory=deque)
    active: dict[str, list[Sequence]] = field(default_factory=dict)
    finished: SimpleQueue[Generation] = field(default_factory=SimpleQueue)
    acceptance: AcceptanceCounter = field(default_factory=AcceptanceCounter)
    useful_tokens: int = 0
    served: int = 0  # requests that have been admitted so far
    done: int = 0  # and those that have ended

    @property
    def names(self) -> str:
        return "AB"[: self.policy.batches]

    @property
    def in_flight(self) -> list[Sequence]:
        """Of all batches, in order of arrival."""
        return sorted((s for batch in self.active.values() for s in batch), key=lambda s: s.index)

    def receive(self, requests: Iterable[Request]) -> None:
        """All that the run is to serve."""
        self.waiting.extend(requests)
        self.expect(self.waiting)

    def next_wave(self) -> list[Sequence]:
        """Fill all places from the line, evenly over the batches; returns all that are in flight then."""
        count = min(self.policy.in_flight, len(self.paused) + len(self.waiting))
        self.active = {name: [] for name in self.names}
        for place in range(count):
            self._take_next(self.names[place % len(self.names)])
        return self.in_flight

    def regroup(self, policy: Policy, join_tokens: float) -> None:
        """A wave was broken off: all who were in flight pause, and take part in the next one, under another policy."""
        self.sweep()
        for sequence in self.in_flight:
            sequence.rewind()
        self.paused = deque(sorted((*self.in_flight, *self.paused), key=lambda s: s.index))
        self.active = {}
        self.policy, self.join_tokens = policy, join_tokens

    @property
    def waiting_to_refill(self) -> bool:
        """Whether places that become free are taken at once."""
        return self.policy.refill and bool(self.paused or self.waiting)

    def commit(self, sequence: Sequence, emitted: Iterable[int], accepted: int) -> None:
        """A pass has emitted tokens for a sequence, the first `accepted` of them as proposed."""
        proposed = len(sequence.proposal.tokens)
        if proposed:
            self.acceptance.add(proposed, accepted, sequence.index)
        kept = sequence.commit(list(emitted))
        self.useful_tokens += kept
        if kept:
            self.record(Commit(sequence.index, tuple(sequence.tokens[-kept:]), proposed, accepted))

    def sweep(self) -> None:
        """Let go of those that are done."""
        for name, batch in self.active.items():
            for sequence in batch:
                if sequence.done:
                    self.release(sequence)
                    self.finished.put(sequence.generation)
                    self.done += 1
            self.active[name] = [s for s in batch if not s.done]

    def refill(self, name: str) -> None:
        """Put those next in line into a batch's free places, as many as one pass may take the tokens of, but one in any
        case: with what was committed before, a request may be longer than any prompt."""
        batch = self.active[name]
        taken = 0
        while self.waiting_to_refill and len(batch) < self.policy.batch:
            tokens = self._next_tokens()
            if taken and taken + tokens > self.join_tokens:
                break
            taken += tokens
            self._take_next(name)

    def _next_tokens(self) -> int:
        """How many the first in line brings to its first pass."""
        if self.paused:
            return len(self.paused[0].feed)
        return len(self.waiting[0].prompt) + len(self.waiting[0].committed)

    def _take_next(self, name: str) -> None:
        """The first in line takes a place. It leaves the line last: at no moment is it in neither."""
        if self.paused:
            self.active[name].append(self.paused[0])
            self.paused.popleft()
            return
        self.active[name].append(self.admit(self.waiting[0]))
        self.served += 1
        self.waiting.popleft()
