"""What a client gets: whole answers, and answers in pieces, as OpenAI's two interfaces word them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Final

from executor.requests import FinishReason, Generation

#: how OpenAI calls the ends of a request; one that is cancelled gets no answer
REASONS: Final[Mapping[FinishReason, str]] = {"eos": "stop", "stop": "stop", "length": "length"}
DONE: Final = b"data: [DONE]\n\n"

Reply = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Style:
    """One of the two interfaces: what a whole answer and a piece of one are called, and the prefix of ids."""

    whole: str
    piece: str
    prefix: str

    def choice(self, text: str, reason: str | None, *, piece: bool) -> Reply:
        if self.piece == self.whole:
            said: Reply = {"text": text}
        elif piece:
            said = {"delta": {"content": text} if reason is None else {}}
        else:
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
        return {"index": 0, **said, "logprobs": None, "finish_reason": reason}


COMPLETION: Final = Style("text_completion", "text_completion", "cmpl")
CHAT: Final = Style("chat.completion", "chat.completion.chunk", "chatcmpl")


@dataclass(frozen=True, slots=True)
class Answer:
    """All replies to one request."""

    style: Style
    model: str
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(datetime.now(UTC).timestamp()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.style.prefix}-{token_hex(12)}")

    def whole(self, generation: Generation) -> Reply:
        """`generation` has ended."""
        choice = self.style.choice(generation.text or "", _reason(generation), piece=False)
        return self._reply(self.style.whole, [choice]) | {"usage": usage(generation)}

    def begin(self) -> bytes:
        """The first piece of an answer, which says whose it is."""
        if self.style is COMPLETION:
            return b""
        delta = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return event(self._reply(self.style.piece, [delta]))

    def piece(self, text: str) -> bytes:
        return event(self._reply(self.style.piece, [self.style.choice(text, None, piece=True)]))

    def end(self, generation: Generation, *, counted: bool) -> bytes:
        """The last piece, and what it all has cost, if that is wanted."""
        last = self.style.choice("", _reason(generation), piece=True)
        out = event(self._reply(self.style.piece, [last]))
        return out + event(self._reply(self.style.piece, []) | {"usage": usage(generation)}) if counted else out

    def _reply(self, kind: str, choices: list[Reply]) -> Reply:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def event(data: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(generation: Generation) -> Reply:
    prompt, output = len(generation.request.prompt), len(generation.output_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": generation.reused},
    }


def _reason(generation: Generation) -> str:
    assert generation.finish_reason is not None, "it has ended"
    return REASONS[generation.finish_reason]
