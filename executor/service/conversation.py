"""One conversation with a service: turn by turn, the text of each answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final

from executor.chatformat import ChatFormat, Message, Transcript
from executor.detokenizer import TextStream
from executor.requests import FinishReason, Request
from executor.service.service import Ended, Service
from executor.speculation.sampling import Sampling

#: draws of a conversation are keyed by its seed and the position alone, so they do not depend on what else is served
KEY: Final = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """`reused` tokens of the prompt were cached, the others were read; `first_s` is the time to the first token."""

    prompt: int
    reused: int
    output: int
    first_s: float
    seconds: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are made."""

    sampling: Sampling
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    eos: frozenset[int] = frozenset()


@dataclass(slots=True)
class Conversation:
    service: Service
    format: ChatFormat
    manner: Manner
    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    _transcript: Transcript = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        system: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        self._transcript = Transcript(self.format, system)
        self.turns = []

    def say(self, text: str) -> Iterator[str]:
        """The answer in pieces. Raises InputError where the conversation is too long; then it is as before, as it is
        where the caller stops listening. Raises the service's error where it fails."""
        manner, events = self.manner, SimpleQueue[tuple[int, ...] | Ended]()
        stop = (*manner.stop, *self.format.stop)
        prompt = self._transcript.ask(text)
        began = time.perf_counter()
        first_s = 0.0
        ticket = self.service.ask(
            lambda index: Request(
                index, str(index), prompt, manner.max_new_tokens, stop, manner.eos, sampling=manner.sampling, key=KEY
            ),
            events.put,
        )
        stream = TextStream(self.format.tokenizer.decode, stop)
        try:
            while not isinstance(event := events.get(), Ended):
                first_s = first_s or time.perf_counter() - began
                yield stream.feed(token for token in event if token not in manner.eos)
        finally:
            self.service.cancel(ticket)  # who stops listening wants no more
        if event.error is not None:
            raise event.error
        generation = event.generation
        assert generation is not None, "a service that did not fail has one"
        assert generation.text is not None, "there is a tokenizer"
        assert generation.finish_reason is not None, "it has ended"
        yield stream.finish(generation.text)
        self._transcript.take(text, prompt, generation.output_ids, generation.text)
        seconds = time.perf_counter() - began
        output = len(generation.output_ids)
        self.turns.append(Turn(len(prompt), generation.reused, output, first_s, seconds, generation.finish_reason))
