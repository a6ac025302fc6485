"""A request in flight: its tokens, its caches, and what was proposed for it."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Final

from executor.decoder.cache import SequenceCache
from executor.requests import Generation
from executor.speculation.ngram import NgramIndex
from executor.speculation.sampling import Sampling
from executor.speculation.verify import Proposal
from specsim.simulator.lengths import Pace

NOTHING: Final = Proposal(())


@dataclass(slots=True, eq=False)
class Sequence:
    """`cache` holds K and V of all committed tokens but the last, which the next pass feeds together with what is
    proposed to follow it. The draft's cache holds no more than that. `pace` says how many candidates it asks for, None
    that it always asks for the plan's number."""

    generation: Generation
    cache: SequenceCache
    draft_cache: SequenceCache | None = None
    ngram: NgramIndex | None = None
    proposal: Proposal = field(default=NOTHING)
    pace: Pace | None = None

    @property
    def tokens(self) -> list[int]:
        """The prompt and what was committed."""
        return self.generation.tokens

    @property
    def index(self) -> int:
        """Of the request."""
        return self.generation.request.index

    @property
    def sampling(self) -> Sampling:
        return self.generation.request.sampling

    @property
    def key(self) -> int:
        """Of its random draws."""
        request = self.generation.request
        return request.index if request.key is None else request.key

    @property
    def done(self) -> bool:
        return self.generation.finish_reason is not None

    @property
    def fresh(self) -> bool:
        """Whether nothing follows its prompt yet."""
        return len(self.tokens) == len(self.generation.request.prompt)

    @property
    def restoring(self) -> bool:
        """Whether its next pass only reads again what was committed before its cache was lost. Such a pass decides
        nothing: the next token is decided where it would have been without the loss, after a proposal."""
        return not self.fresh and self.cache.length < len(self.tokens) - 1

    @property
    def feed(self) -> list[int]:
        """The tokens that its next pass reads, with what is proposed to follow them."""
        if self.restoring:
            return self.tokens[self.cache.length : -1]
        return self.tokens[self.cache.length :] + list(self.proposal.tokens)

    @property
    def decisions(self) -> int:
        """Rows of its next pass, the last ones, that need logits: the last of its own tokens, and the candidates."""
        return 0 if self.restoring else 1 + len(self.proposal.tokens)

    def candidates(self, gamma: int) -> int:
        """How many tokens are worth proposing: a pass adds one of the target's own, and no request is exceeded. Nothing
        follows a prompt: did it in a freed place but not in a prefill, sampled tokens would depend on which."""
        if self.fresh or self.restoring:
            return 0
        wanted = gamma if self.pace is None else min(gamma, self.pace.wanted)
        return max(0, min(wanted, self.generation.remaining - 1))

    def rewind(self) -> None:
        """A pass was broken off: the draft's cache holds what was committed only, as the target's always does."""
        if self.draft_cache is not None:
            self.draft_cache.length = min(self.draft_cache.length, len(self.tokens) - 1)

    def commit(self, emitted: Many[int]) -> int:
        """Take what a pass has emitted, nothing if it only restored, and roll the caches back to it; returns how many
        tokens were kept."""
        kept = self.generation.take(emitted)
        valid = len(self.tokens) - 1
        self.cache.length = valid
        if self.draft_cache is not None:
            self.draft_cache.length = min(self.draft_cache.length, valid)
        if self.ngram is not None:
            self.ngram.extend(self.tokens[len(self.tokens) - kept :])
        self.proposal = NOTHING
        return kept
