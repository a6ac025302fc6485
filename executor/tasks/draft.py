"""The draft's tasks: its own prefill, and gamma steps for every micro-batch of sequences, its K and V kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional

from executor.decoder.cache import KvArena, Segment, SequenceCache, shared_runs
from executor.decoder.numerics import argmax
from executor.decoder.resident import ResidentModel
from executor.links import Link
from executor.sequence import Sequence
from executor.speculation.draws import Purpose, uniform
from executor.speculation.sampling import Sampling, distribution, draw
from executor.speculation.verify import Proposal, require_finite
from executor.tasks.context import visit
from specsim.decision import DraftPolicy
from specsim.positions import DRAFT_TOKENS
from specsim.schedule.graph import Task, TaskName
from specsim.schedule.sweeps import deal


@dataclass(slots=True, eq=False)
class Micro:
    """Sequences that draft together. `caches` are those that the draft computes with: the sequences' own, or working
    copies where theirs live in RAM, or none are kept. `known`: positions that a working copy began with."""

    sequences: list[Sequence]
    caches: list[SequenceCache]
    known: list[int]
    tokens: list[list[int]]
    probs: list[list[Tensor]]


@dataclass(slots=True, eq=False)
class DraftContext:
    """What the draft's tasks share. `load` gives the model, at the start or once its weights no longer have to wait;
    `sequences` are those of a visit; `streamed`: caches live in RAM and the draft computes on the GPU."""

    policy: DraftPolicy
    gamma: int
    vocab: int  # the target's
    device: torch.device
    link: Link
    load: Callable[[], ResidentModel]
    sequences: Callable[[TaskName], list[Sequence]]
    admit: Callable[[Sequence], None]  # gives a sequence the draft's cache, where it has none yet
    working_arena: Callable[[int], KvArena]  # of so many places
    enter: Callable[[str], None]  # a phase of the memory's plan
    streamed: bool
    prompt_tokens: int  # of prompts, at once
    model: ResidentModel | None = None
    shares: dict[str, int] = field(default_factory=dict)  # micro-batches of a visit, counted as its tasks come in
    under_way: dict[tuple[str, int], Micro] = field(default_factory=dict)

    def expect(self, name: TaskName) -> None:
        """A task of this visit has been lowered, so it has at least so many micro-batches."""
        at = visit(name)
        self.shares[at] = max(self.shares.get(at, 1), (name.micro or 0) + 1)

    def micro(self, name: TaskName) -> Micro:
        """The micro-batch of a task; the visit's sequences are dealt out when the first of its tasks runs."""
        at = visit(name)
        if at in self.shares:
            sequences = self.sequences(name)
            for number, share in enumerate(deal([len(s.tokens) for s in sequences], self.shares.pop(at))):
                self.under_way[at, number] = self._begin([sequences[i] for i in share])
        return self.under_way[at, name.micro or 0]

    def close(self, name: TaskName) -> None:
        """The micro-batch has drafted; its working copies go."""
        del self.under_way[visit(name), name.micro or 0]

    def _begin(self, sequences: list[Sequence]) -> Micro:
        for sequence in sequences:
            self.admit(sequence)
        own = [s.draft_cache for s in sequences if s.draft_cache is not None]
        caches = own if len(own) == len(sequences) and not self.streamed else []
        return Micro(sequences, caches, [], [[] for _ in sequences], [[] for _ in sequences])


def load(d: DraftContext, name: TaskName, task: Task) -> int | None:
    """The weights had to wait for room; later waves find them there."""
    if d.model is not None:
        return None
    d.enter("transition")
    d.model = d.load()
    return d.model.arch.model.weight_bytes


def prefill(d: DraftContext, name: TaskName, task: Task) -> int | None:
    """The draft reads the prompts, up to the token that its first step will feed."""
    d.enter("transition")
    micro = d.micro(name)
    if d.streamed:
        micro.caches = _working(d, micro, 0)
        micro.known = [0] * len(micro.sequences)
    feeds = [s.tokens[cache.length : -1] for s, cache in zip(micro.sequences, micro.caches, strict=True)]
    lacking = [i for i, feed in enumerate(feeds) if feed]  # after a broken-off wave not all do
    caches = [micro.caches[i] for i in lacking]
    _forward(d, caches, [feeds[i] for i in lacking], d.prompt_tokens, logits=False)
    if not d.streamed:
        d.close(name)
    return 0 if lacking else None


def kv_in(d: DraftContext, name: TaskName, task: Task) -> int | None:
    """Caches that live in RAM come to the GPU, with room for what this round adds."""
    micro = d.micro(name)
    micro.caches = _working(d, micro, d.gamma)
    moved = 0
    for s, working in zip(micro.sequences, micro.caches, strict=True):
        assert s.draft_cache is not None
        read = s.draft_cache.length if s.candidates(d.gamma) else 0  # who drafts nothing reads nothing
        for here, there in shared_runs(working, s.draft_cache, 0, read):
            for into, home in zip(working.arena.layers, s.draft_cache.arena.layers, strict=True):
                moved += d.link.bring(into[:, :, here], home[:, :, there])
        working.length = s.draft_cache.length
        micro.known.append(working.length)
    return moved


def kv_out(d: DraftContext, name: TaskName, task: Task) -> int | None:
    """The new positions go home to RAM, and the buffer is free."""
    micro = d.micro(name)
    moved = 0
    for s, working, known in zip(micro.sequences, micro.caches, micro.known, strict=True):
        assert s.draft_cache is not None
        for there, here in shared_runs(s.draft_cache, working, known, working.length):
            for home, visitor in zip(s.draft_cache.arena.layers, working.arena.layers, strict=True):
                moved += d.link.take_back(home[:, :, there], visitor[:, :, here])
        s.draft_cache.length = working.length
    d.close(name)
    return moved


def forward(d: DraftContext, name: TaskName, task: Task) -> int | None:
    """One step: every sequence that can use another candidate gets one. The first step catches up with what the target
    has committed, which is a whole prompt for newcomers, and the whole context where no caches are kept."""
    step = int(name.site[1:])
    d.enter("decode")
    micro = d.micro(name)
    if step == 0 and len(micro.caches) < len(micro.sequences):
        micro.caches = _working(d, micro, d.gamma)
    taking = [i for i, s in enumerate(micro.sequences) if s.candidates(d.gamma) > step]
    caches = [micro.caches[i] for i in taking]
    feeds = [(micro.sequences[i].tokens + micro.tokens[i])[micro.caches[i].length :] for i in taking]
    if taking:
        logits = _forward(d, caches, feeds, DRAFT_TOKENS, logits=True)
        for i, token, probs in zip(
            taking, *_choose(d, [micro.sequences[i] for i in taking], step, logits), strict=True
        ):
            micro.tokens[i].append(token)
            if probs is not None:
                micro.probs[i].append(probs)
    if step == d.gamma - 1:
        for s, tokens, q in zip(micro.sequences, micro.tokens, micro.probs, strict=True):
            s.proposal = Proposal(tuple(tokens), torch.stack(q) if q else None)
        if not d.streamed:
            d.close(name)
    return 0 if taking else None


def _working(d: DraftContext, micro: Micro, candidates: int) -> list[SequenceCache]:
    """Empty caches for a micro-batch where the draft computes, with room for so many candidates."""
    capacities = [len(s.tokens) + candidates for s in micro.sequences]
    arena = d.working_arena(sum(capacities))
    return [arena.take(capacity) for capacity in capacities]


def _choose(
    d: DraftContext, sequences: list[Sequence], step: int, logits: Tensor
) -> tuple[list[int], list[Tensor | None]]:
    """The next candidate of each sequence, and the distribution that it was drawn from, None where none was."""
    tokens: list[int] = argmax(logits).tolist()
    drawn: list[Tensor | None] = [None] * len(sequences)
    for sampling, rows in _alike(sequences).items():
        require_finite(logits[rows], [sequences[i].index for i in rows])
        probs = distribution(logits[rows], sampling)
        if probs.shape[1] < d.vocab:
            probs = functional.pad(probs, (0, d.vocab - probs.shape[1]))
        for i, p in zip(rows, probs, strict=True):
            s = sequences[i]
            tokens[i] = draw(p, uniform(s.sampling.seed, s.key, len(s.tokens) + step, Purpose.DRAFT))
            drawn[i] = p
    return tokens, drawn


def _alike(sequences: list[Sequence]) -> dict[Sampling, list[int]]:
    """Those that sample, by the way that they make a distribution of logits: one call does for each."""
    alike: dict[Sampling, list[int]] = {}
    for i, s in enumerate(sequences):
        if not s.sampling.greedy:
            alike.setdefault(replace(s.sampling, seed=0), []).append(i)
    return alike


def _forward(
    d: DraftContext, caches: list[SequenceCache], feeds: list[list[int]], most: int, *, logits: bool
) -> Tensor:
    """Feed tokens to sequences, whole ones at a time and at most `most` tokens at once, or one longer sequence:
    the logits [n, V] of each one's last token, if they are wanted."""
    assert d.model is not None, "the draft's weights are loaded before its first task"
    rows = []
    first = 0
    while first < len(feeds):
        last, tokens = first + 1, len(feeds[first])
        while last < len(feeds) and tokens + len(feeds[last]) <= most:
            tokens += len(feeds[last])
            last += 1
        rows.append(_feed(d, caches[first:last], feeds[first:last], logits))
        first = last
    return torch.cat(rows) if rows else torch.empty(0)


def _feed(d: DraftContext, caches: list[SequenceCache], feeds: list[list[int]], logits: bool) -> Tensor:
    assert d.model is not None
    segments: list[Segment] = []
    ids: list[int] = []
    for cache, feed in zip(caches, feeds, strict=True):
        segments.append(Segment(len(ids), len(feed), cache.length))
        ids += feed
    ends = [s.first + s.count - 1 for s in segments] if logits else []
    # Vocabularies of one family may be padded differently: beyond the smaller one there are no real tokens.
    tokens = torch.tensor(ids, dtype=torch.int64, device=d.device).clamp_max(d.model.arch.model.vocab - 1)
    out = d.model.forward(tokens, segments, caches, torch.tensor(ends, dtype=torch.int64, device=d.device))
    for cache, feed in zip(caches, feeds, strict=True):
        cache.length += len(feed)
    return out[:, : d.vocab]
