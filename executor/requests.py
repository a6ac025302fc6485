"""A request, and where its output ends: at an end token, a stop string, or its own number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from executor.detokenizer import Decode, Detokenizer
from executor.speculation.sampling import Sampling
from specsim.errors import InputError
from specsim.simulator.lengths import UNSEEN, Seen

FinishReason = Literal["eos", "stop", "length", "cancelled"]

GREEDY: Final = Sampling()


@dataclass(frozen=True, slots=True)
class Request:
    """`index` is its place among the run's requests, `id` names it. `committed` is output of before: of an earlier run,
    or until a pause; `seen` is what its rounds had shown then of the draft. `key` keys its random draws beside the
    seed, None being the index: requests of one seed that are to draw each for itself differ in it. Raises InputError.
    """

    index: int
    id: str
    prompt: tuple[int, ...]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    eos: frozenset[int] = frozenset()
    committed: tuple[int, ...] = ()
    seen: Seen = UNSEEN
    sampling: Sampling = GREEDY
    key: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError("the prompt has no tokens", where=self.where, hint="give at least one")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}", where=self.where, hint="ask for at least 1")
        if "" in self.stop:
            raise InputError("a stop string is empty", where=self.where, hint="it would stop everywhere; leave it out")

    @property
    def where(self) -> str:
        return f"request {self.id!r}"


class Generation:
    """A request under way: `tokens` are its prompt and what was committed so far.

    `finish_reason` is None until the token that ends it is committed, or nobody wants the rest; nothing is committed
    after that. `reused` tokens of the prompt were cached before (see `executor.kept`).
    Raises InputError for a request with stop strings without a `decode` to look for them in.
    """

    def __init__(self, request: Request, decode: Decode | None = None) -> None:
        if request.stop and decode is None:
            hint = "stop strings need the checkpoint's tokenizer"
            raise InputError(f"cannot look for the stop string {request.stop[0]!r}", where=request.where, hint=hint)
        self.request, self._decode = request, decode
        self.tokens = list(request.prompt)
        self.finish_reason: FinishReason | None = None
        self.reused = 0
        self._watch = _StopWatch(request.stop, decode) if request.stop and decode else None
        if self.take(request.committed) < len(request.committed):
            at = len(self.output_ids)
            raise InputError(f"tokens follow the {at} that end its output ({self.finish_reason})", where=request.where)

    @property
    def output_ids(self) -> list[int]:
        """The committed tokens, with the one that ended the output."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def remaining(self) -> int:
        """Tokens that may still be committed."""
        made = len(self.tokens) - len(self.request.prompt)
        return 0 if self.finish_reason is not None else self.request.max_new_tokens - made

    @property
    def text(self) -> str | None:
        """Of the output, without the end token and cut before a stop string; None without a tokenizer."""
        if self._decode is None:
            return None
        if self._watch is not None and self.finish_reason == "stop":
            return self._watch.text
        output = self.output_ids
        return self._decode(output[:-1] if self.finish_reason == "eos" else output)

    def take(self, emitted: Sequence[int]) -> int:
        """Commit `emitted` left to right up to the request's end, and say how many that were."""
        for count, token in enumerate(emitted):
            if self.finish_reason is not None:
                return count
            self.tokens.append(token)
            self.finish_reason = self._reason(token)
        return len(emitted)

    def cancel(self) -> None:
        """End it where it is, unless it has ended."""
        self.finish_reason = self.finish_reason or "cancelled"

    def _reason(self, token: int) -> FinishReason | None:
        if token in self.request.eos:
            return "eos"
        if self._watch is not None and self._watch.completes(token):
            return "stop"
        return "length" if self.remaining == 0 else None


class _StopWatch:
    """Finds the first stop string in an output that comes token by token."""

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        self.text = ""  # cut before a stop string once one is found
        self._stops, self._decoded = stops, Detokenizer(decode)

    def completes(self, token: int) -> bool:
        """Whether `token` completes a stop string. Characters that are not whole yet are not part of any."""
        before = self._decoded.settled
        self.text = self._decoded.feed(token)
        found = [self.text.find(stop, max(0, before - len(stop) + 1)) for stop in self._stops]
        if max(found) >= 0:
            self.text = self.text[: min(at for at in found if at >= 0)]
            return True
        return False
