"""Who is in flight: requests wait in line, take places in batches, gain tokens pass by pass, and leave when done."""

from __future__ import annotations

import bisect
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from executor.admission import Admission
from executor.metrics import AcceptanceCounter
from executor.requests import Generation, Request
from executor.sequence import Sequence
from specsim.decision import Policy
from specsim.schedule.graph import TaskName


@dataclass(frozen=True, slots=True)
class Commit:
    """What a pass has decided for a request: the tokens that were kept, and how many were proposed and accepted."""

    request: int  # its index
    tokens: tuple[int, ...]
    proposed: int
    accepted: int


@dataclass(slots=True, eq=False)
class Batches:
    """`admission` makes sequences of requests, with caches of their own, and lets them go; `record` hears of every
    commit and `finish` of every end, on the stream that makes it. `waiting` is served in order of arrival; `paused`,
    who keep their caches and have no place for now, go before them; `finished`, where ends go if nothing else is said,
    is emptied by whoever writes the outputs.

    Only the main processor's stream commits and refills; others look on, and see nobody missing meanwhile. Who has been
    told that a batch has nothing to do in a round can rely on that: whoever joins later takes part in the next.

    Where the caches have room for less than all may need, a sequence that finds none for its next round makes the
    youngest of its batch wait: that one leaves its places and goes back in line, to its turn, with what it has
    committed (see `Sequence.restoring`): it is preempted. Only its own batch, as the others are in the middle of a
    round. This ends: a request is admitted with room for the pass that restores it and for the next round, so between
    two admissions it gains a token, and tokens are finite; and one that is alone finds room, as no request is expected
    that would not fit alone.
    """

    policy: Policy
    join_tokens: float
    admission: Admission
    record: Callable[[Commit], None] = lambda commit: None
    waiting: deque[Request] = field(default_factory=deque)
    paused: deque[Sequence] = field(default_factory=deque)
    active: dict[str, list[Sequence]] = field(default_factory=dict)
    finished: SimpleQueue[Generation] = field(default_factory=SimpleQueue)
    finish: Callable[[Generation], None] = field(init=False)
    acceptance: AcceptanceCounter = field(default_factory=AcceptanceCounter)
    useful_tokens: int = 0
    served: int = 0  # requests that have been admitted so far and did not have to go back in line
    done: int = 0  # and those of them that have ended
    preemptions: int = 0  # how often one had to go back
    restored_positions: int = 0  # what the target has to read again after that
    most: int | None = None  # sequences of a batch, where that is fewer than the policy has places for
    _cancelled: set[int] = field(default_factory=set)  # indices of requests that nobody wants the rest of
    _idle: set[tuple[int, str]] = field(default_factory=set)  # rounds and batches that have nothing to do
    _over: bool = False  # the wave has no more rounds: whoever joins now waits for the next one
    _moving: threading.Lock = field(default_factory=threading.Lock)  # held where someone joins, leaves or takes a place

    def __post_init__(self) -> None:
        self.finish = self.finished.put

    @property
    def names(self) -> str:
        return self.policy.letters

    @property
    def _places(self) -> int:
        """Of a batch."""
        return self.policy.batch if self.most is None else min(self.policy.batch, self.most)

    @property
    def in_flight(self) -> list[Sequence]:
        """Of all batches, in order of arrival."""
        return sorted((s for batch in self.active.values() for s in batch), key=lambda s: s.index)

    @property
    def wanted(self) -> int:
        """Tokens that all who are here may still gain at most. From any thread."""
        with self._moving:  # queues that change while somebody goes through them are an error
            here, waiting = (*self.in_flight, *self.paused), tuple(self.waiting)
        return sum(s.generation.remaining for s in here) + sum(r.max_new_tokens - len(r.committed) for r in waiting)

    def receive(self, requests: Iterable[Request]) -> None:
        """All that the run is to serve."""
        self.waiting.extend(requests)
        self.admission.expect(self.waiting)

    def join(self, request: Request) -> None:
        """One more, at any time, from any thread. Room for its caches is there already."""
        with self._moving:
            self.waiting.append(request)

    def cancel(self, index: int) -> Request | None:
        """Nobody wants the rest of a request, which has not ended: its places are free after its next commit. From any
        thread; one that has no place leaves the line, is returned as it stood, and will not be heard of again."""
        with self._moving:
            for place, request in enumerate(self.waiting):
                if request.index == index:
                    del self.waiting[place]
                    return request
            self._cancelled.add(index)
            return None

    def next_wave(self) -> list[Sequence]:
        """Fill all places from the line, evenly over the batches, while there is room for caches; returns all that are
        in flight then."""
        with self._moving:
            self.admission.before_prefill()
            self._idle.clear()
            self._over = False
            self.active = {name: [] for name in self.names}
            for place in range(self._places * len(self.names)):
                if not self._next_fits:
                    break
                self._take_next(self.names[place % len(self.names)])
        return self.in_flight

    def regroup(self, policy: Policy, join_tokens: float) -> None:
        """A wave was broken off: all who were in flight pause, and take part in the next one, under another policy.

        Some may have committed in the pass that was: they need room for their next round as at its end, the oldest
        first. While one finds none, the youngest of all goes back in line: nobody is in the middle of a round.
        """
        with self._moving:
            ended = self._sweep()
            staying = sorted((*self.in_flight, *self.paused), key=lambda s: s.index)
            for sequence in staying:
                sequence.rewind()
            for sequence in tuple(staying):
                while sequence in staying and not self.admission.grow(sequence):
                    self._send_back(staying.pop())
            self.paused, self.active = deque(staying), {}
            self.policy, self.join_tokens = policy, join_tokens
        for generation in ended:
            self.finish(generation)

    @property
    def waiting_to_refill(self) -> bool:
        """Whether places that become free are taken at once."""
        return self.policy.refill and bool(self.paused or self.waiting)

    def commit(self, sequence: Sequence, emitted: Iterable[int], accepted: int) -> None:
        """A pass has emitted tokens for a sequence, the first `accepted` of them as proposed."""
        proposed = len(sequence.proposal.tokens)
        if proposed:
            self.acceptance.add(proposed, accepted, sequence.index)
        if sequence.index in self._cancelled:
            sequence.generation.cancel()
        kept = sequence.commit(list(emitted))
        self.useful_tokens += kept
        if kept:
            if sequence.pace is not None:
                sequence.pace.saw(proposed, accepted)
            self.record(Commit(sequence.index, tuple(sequence.tokens[-kept:]), proposed, accepted))

    @property
    def under_way(self) -> bool:
        """Whether this wave has another round. Once it has not, nobody joins it any more."""
        with self._moving:
            self._over = not (self.waiting_to_refill or self.in_flight)
            return not self._over

    def may_serve(self, number: int, names: str) -> bool:
        """Whether any of these batches has a sequence in this round, or may get one: of those who wait, or who have to
        leave their places. One that is alone never has to. Once it may not, it will not."""
        visits = {(number, name) for name in names}
        with self._moving:
            if self._over or visits <= self._idle:
                return False
            leaving = self.policy.refill and self.policy.kv_positions is not None and len(self.in_flight) > 1
            if self.waiting_to_refill or leaving or any(self.active[name] for name in names):
                return True
            self._idle |= visits
            return False

    def end_pass(self, name: TaskName) -> None:
        """A pass has committed: let go of those that are done, and see who is in its batch's next round."""
        with self._moving:
            ended = self._sweep()
            if name.phase == "verify":
                self._make_room(name.batch)
                self._idle.discard((name.round, name.batch))
                if not self._over and (name.round + 1, name.batch) not in self._idle:
                    self._refill(name.batch)
        for generation in ended:
            self.finish(generation)

    def _sweep(self) -> list[Generation]:
        """Let go of those that are done."""
        ended = []
        for name, batch in self.active.items():
            for sequence in batch:
                if sequence.done:
                    self.admission.release(sequence)
                    self._cancelled.discard(sequence.index)
                    ended.append(sequence.generation)
                    self.done += 1
            self.active[name] = [s for s in batch if not s.done]
        return ended

    def _make_room(self, name: str) -> None:
        """Room for the next round of a batch's sequences, the oldest first; while one finds none, the youngest goes."""
        for sequence in sorted(self.active[name], key=lambda s: s.index):
            while sequence in self.active[name] and not self.admission.grow(sequence):
                self._preempt(name, max(self.active[name], key=lambda s: s.index))

    def _preempt(self, name: str, sequence: Sequence) -> None:
        """Out of its batch. It takes its place in line first: at no moment is it in neither."""
        self._send_back(sequence)
        self.active[name] = [s for s in self.active[name] if s is not sequence]

    def _send_back(self, sequence: Sequence) -> None:
        """Back in line, before all that came later."""
        request = replace(sequence.generation.request, committed=tuple(sequence.generation.output_ids))
        if sequence.pace is not None:
            request = replace(request, seen=sequence.pace.seen)
        self.waiting.insert(bisect.bisect(self.waiting, request.index, key=lambda r: r.index), request)
        self.admission.release(sequence)
        self.served -= 1
        self.preemptions += 1
        self.restored_positions += sequence.cache.length

    def _refill(self, name: str) -> None:
        """Put those next in line into a batch's free places, as many as one pass may take the tokens of, but one in any
        case: with what was committed before, a request may be longer than any prompt."""
        taken = 0
        while self.policy.refill and len(self.active[name]) < self._places and self._next_fits:
            tokens = self._next_tokens()
            if taken and taken + tokens > self.join_tokens:
                break
            taken += tokens
            self._take_next(name)

    @property
    def _next_fits(self) -> bool:
        """Whether somebody waits, and there is room for the first in line."""
        return bool(self.paused) or (bool(self.waiting) and self.admission.fits(self.waiting[0]))

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
        self.active[name].append(self.admission.admit(self.waiting[0]))
        self.served += 1
        self.waiting.popleft()
