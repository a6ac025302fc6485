"""The text of tokens as they come: whole characters, which stay, as soon as they are whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

#: a tokenizer's text of output tokens, without its special tokens
Decode = Callable[[Sequence[int]], str]

#: what decoders put for bytes that are no character, or not yet
_INCOMPLETE: Final = "\ufffd"


class Detokenizer:
    """Decodes an output token by token.

    Only the tokens since the last but one whole character are decoded again, so a token costs the same however long
    the output is. Those before the last whole character are context: decoders treat the first of all tokens otherwise.
    """

    def __init__(self, decode: Decode) -> None:
        self.settled = 0  # characters that no later token changes
        self._decode = decode
        self._text = ""  # of these
        self._window: list[int] = []  # context, then the tokens whose text is not in `_text` yet
        self._context = 0

    def feed(self, token: int) -> str:
        """The text of all tokens so far, without a last character that is not whole yet."""
        self._window.append(token)
        known = len(self._decode(self._window[: self._context]))
        fresh = self._decode(self._window)[known:]
        seen = self._text + fresh.rstrip(_INCOMPLETE)
        if fresh and not fresh.endswith(_INCOMPLETE):
            self._text, self.settled = seen, len(seen)
            self._window = self._window[self._context :]
            self._context = len(self._window)
        return seen


class TextStream:
    """The text of an output in pieces: what may still turn out to be the beginning of a stop string is held back."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self.stops, self._decoded = stops, Detokenizer(decode)
        self._seen = self._sent = ""

    def feed(self, tokens: Iterable[int]) -> str:
        """The next piece, perhaps empty. An end token is not to be fed: it has no text."""
        for token in tokens:
            self._seen = self._decoded.feed(token)
        found = [at for stop in self.stops if (at := self._seen.find(stop)) >= 0]
        end = min(found, default=len(self._seen) - max((_begun(self._seen, stop) for stop in self.stops), default=0))
        piece, self._sent = self._seen[len(self._sent) : end], self._seen[: max(end, len(self._sent))]
        return piece

    def finish(self, text: str) -> str:
        """The last piece of an output that is `text` as a whole."""
        return text[len(self._sent) :]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    return next((n for n in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:n])), 0)
