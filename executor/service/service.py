"""A job that serves requests as they come: tokens are handed on as they are committed, until the request's end.

What may happen to a request: it waits in line, takes a place, gains tokens, and ends; it is cancelled in line or in
flight; or an error ends the job, and all requests with it. Whoever asked hears of tokens, and of one end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from executor.batches import Commit
from executor.job import Job
from executor.requests import Generation, Request
from specsim.errors import InputError, SpecsimError

#: requests of before are forgotten each so many ends
_FORGET_EVERY: Final = 256


class BusyError(SpecsimError):
    """As many requests wait in line as may."""


class ClosedError(SpecsimError):
    """The service takes no more requests."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The request is over. `error` is None unless the whole service failed; then there may be no generation."""

    generation: Generation | None
    error: BaseException | None = None


#: hears of a request: tokens that were committed, then its end. Called by computing threads, so it must not wait
Hear = Callable[[tuple[int, ...] | Ended], None]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that was taken."""

    request: Request
    hear: Hear


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens of one request: of its prompt, and of that and its output together; how many requests may wait in line."""

    prompt: int
    context: int
    queue: int


@dataclass(slots=True)
class Counts:
    """Since the service began: prompt tokens, those of them that were cached already, output tokens, requests by how
    they ended."""

    prompt: int = 0
    reused: int = 0
    output: int = 0
    ends: dict[str, int] = field(default_factory=dict)


class Service:
    """Owns a prepared job, in a thread of its own. Any thread may ask and cancel. Use it as a context manager: leaving
    it cancels what is under way, and waits until all places are given back. Unless `keep` says otherwise, caches of
    requests that have ended are kept for those that begin alike, in places that nobody needs."""

    def __init__(self, job: Job, queue: int, *, keep: bool = True) -> None:
        model, work = job.plan.case.target, job.plan.case.workload
        policy = job.plan.decision.policy
        most = model.max_positions if policy.kv_positions is None else min(model.max_positions, policy.kv_positions)
        context = min(most, work.prompt_tokens_max + work.output_tokens)
        self.job, self.limits = job, Limits(min(work.prompt_tokens_max, context - 1), context, queue)
        self.counts = Counts()
        self.error: BaseException | None = None
        self._tickets: dict[int, Ticket] = {}
        self._asked = 0  # requests, so far
        self._closing = False
        self._lock = threading.Lock()  # guards all of these
        self._news = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._serve, name="specsim service", daemon=True)
        batches, admission = job.batches, job.batches.admission
        batches.record, batches.finish = self._record, self._finish
        if keep:
            admission.keep()
        admission.reserve([context] * policy.in_flight)

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close(0.0)

    @property
    def open(self) -> bool:
        """Whether it takes requests."""
        return not self._closing

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self.job.batches.waiting)

    @property
    def in_flight(self) -> int:
        """Requests that have a place."""
        return len(self.job.batches.in_flight)

    @property
    def kept_positions(self) -> int:
        """Of the caches' places, those that are kept in case a request comes that begins alike."""
        kept = self.job.batches.admission.kept
        return kept.positions if kept is not None else 0

    @property
    def free_positions(self) -> int:
        """And those that no request has: free, or kept."""
        return self.job.batches.admission.free + self.kept_positions

    def check(self, prompt_tokens: int, max_new_tokens: int) -> None:
        """Raise InputError for a request that is longer than those whose memory the plan has counted."""
        limits = self.limits
        if prompt_tokens > limits.prompt:
            what = f"the prompt has {prompt_tokens} tokens, at most {limits.prompt} are planned for"
            raise InputError(what, hint="shorten it, or plan with more --prompt-tokens")
        if prompt_tokens + max_new_tokens > limits.context:
            what = f"{prompt_tokens} prompt tokens and {max_new_tokens} new ones exceed the context of {limits.context}"
            raise InputError(what, hint=f"ask for at most {limits.context - prompt_tokens} new ones")

    def ask(self, make: Callable[[int], Request], hear: Hear) -> Ticket:
        """Take a request; `make` gets the index that it is to have. Raises InputError, BusyError and ClosedError."""
        with self._lock:
            if self._closing:
                raise ClosedError("the service is closing") from self.error
            if len(self._tickets) >= self.limits.queue + self.job.plan.decision.policy.in_flight:
                raise BusyError(f"{self.waiting} requests wait in line")
            request = make(self._asked)
            self.check(len(request.prompt), request.max_new_tokens)
            self._asked += 1
            ticket = self._tickets[request.index] = Ticket(request, hear)
            self.job.batches.join(request)
            self._news.notify_all()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody wants the rest, and the request ends soon. Does nothing once it has ended."""
        with self._lock:
            index = ticket.request.index
            if index not in self._tickets or (left := self.job.batches.cancel(index)) is None:
                return
            del self._tickets[index]
            generation = Generation(left, self.job.batches.admission.decode)
            self._count(generation)
            self._count_end("cancelled")
            self._news.notify_all()
        generation.cancel()
        ticket.hear(Ended(generation))

    def close(self, drain_s: float) -> None:
        """Take no more requests, let those that were taken end for so long, then cancel them; returns when all places
        are given back. May be called again."""
        with self._lock:
            self._closing = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._tickets, drain_s)
            left = list(self._tickets.values())
        for ticket in left:
            self.cancel(ticket)
        if self._thread.ident is not None:
            self._thread.join()
        self.job.batches.admission.keep_no_more()

    def _serve(self) -> None:
        """What the thread does: it sleeps while nobody waits."""
        try:
            while True:
                with self._lock:
                    self._news.wait_for(lambda: self._closing or self.waiting)
                    if not self.waiting:
                        return
                self.job.serve()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._closing, self.error = True, error
            tickets, self._tickets = self._tickets, {}
            self._news.notify_all()
        for ticket in tickets.values():
            ticket.hear(Ended(None, error))

    def _record(self, commit: Commit) -> None:
        ticket = self._tickets.get(commit.request)
        if ticket is not None:
            ticket.hear(commit.tokens)

    def _finish(self, generation: Generation) -> None:
        reason = generation.finish_reason
        assert reason is not None, "only finished requests are handed over"
        with self._lock:
            ticket = self._tickets.pop(generation.request.index, None)
            self._count(generation)
            if self._count_end(reason) % _FORGET_EVERY == 0:
                self._forget()
            self._news.notify_all()
        if ticket is not None:
            ticket.hear(Ended(generation))

    def _count(self, generation: Generation) -> None:
        """What was computed for a request; nothing for one that never had a place."""
        if generation.output_ids or generation.finish_reason is not None:
            self.counts.prompt += len(generation.request.prompt)
            self.counts.reused += generation.reused
            self.counts.output += len(generation.output_ids)

    def _count_end(self, reason: str) -> int:
        ends = self.counts.ends
        ends[reason] = ends.get(reason, 0) + 1
        return sum(ends.values())

    def _forget(self) -> None:
        """What a run that ends would say of itself at its end."""
        self.job.waves.clear()
        self.job.floor.shapes.clear()
        self.job.batches.acceptance.forget_requests()
