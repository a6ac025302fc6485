"""From messages to a prompt: as the checkpoint's own chat template says, or as plain text where it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from executor.tokenizer import Tokenizer
from specsim.errors import InputError

#: a role and what was said: {"role": "user", "content": "..."}
Message = dict[str, str]

#: so many of an answer's last tokens may be another text in the next prompt: stop strings are not shown, and some
#: templates cut off blanks
REWRITTEN: Final = 1024

#: of the plain format, in which a model would go on for the user too
PLAIN_STOP: Final = ("\nuser:",)


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The plain format is a line `role: content` for each message, and `assistant:` for the answer."""

    tokenizer: Tokenizer

    @property
    def plain(self) -> bool:
        """Whether the checkpoint has no chat template of its own."""
        return not getattr(self.tokenizer.backend, "chat_template", None)

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends an answer beside the end token."""
        return PLAIN_STOP if self.plain else ()

    def render(self, messages: Sequence[Message]) -> str:
        """The text up to where the answer begins. Raises InputError for messages that the template refuses."""
        if self.plain:
            return "".join(map(_line, messages)) + "assistant:"
        backend: Any = self.tokenizer.backend
        try:
            return str(backend.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
        except Exception as error:  # templates are programs, and raise what they like
            what = f"the chat template refuses the messages: {' '.join(str(error).split())}"
            raise InputError(what, hint="begin with the user, and let roles take turns") from None

    def encode(self, text: str) -> list[int]:
        """The tokens of what `render` gave: a template writes its special tokens itself."""
        return self.tokenizer.encode(text) if self.plain else self.tokenizer.encode_bare(text)


def _line(message: Message) -> str:
    """In the plain format. An answer is what followed the colon, its space too."""
    space = "" if message["role"] == "assistant" else " "
    return f"{message['role']}:{space}{message['content']}\n"


@dataclass(slots=True)
class Transcript:
    """What was said in one conversation, as messages and as tokens. An answer's tokens stay those that the model gave,
    so that the next prompt begins with them, even where a tokenizer would have cut the text another way."""

    format: ChatFormat
    messages: list[Message]
    _text: str = ""  # of the last prompt
    _prompt: tuple[int, ...] = ()
    _answer: tuple[int, ...] = ()

    def ask(self, text: str) -> tuple[int, ...]:
        """The prompt of the next turn. Raises InputError as rendering does; the transcript is as before then."""
        rendered = self.format.render([*self.messages, {"role": "user", "content": text}])
        return tuple(self._joined(rendered) or self.format.encode(rendered))

    def take(self, text: str, prompt: Sequence[int], answer: Sequence[int], said: str) -> None:
        """A turn has ended: `text` was asked as `prompt`, and answered with the tokens `answer`, shown as `said`."""
        self.messages.append({"role": "user", "content": text})
        self._text = self.format.render(self.messages)
        self._prompt, self._answer = tuple(prompt), tuple(answer)
        self.messages.append({"role": "assistant", "content": said})

    def _joined(self, rendered: str) -> list[int] | None:
        """The tokens known so far, as many of them as `rendered` begins with, and those of the rest; None where that
        would be another text."""
        tokenizer = self.format.tokenizer
        said = len(self._answer)
        for end in (*range(said, max(0, said - REWRITTEN), -1), 0):
            if end and self._answer[end - 1] in tokenizer.special:  # the template writes it
                continue
            known = self._text + tokenizer.decode(self._answer[:end])
            if self._prompt and rendered.startswith(known):
                rest = tokenizer.encode_bare(rendered[len(known) :])
                joined = [*self._prompt, *self._answer[:end], *rest]
                same = tokenizer.decode_all(joined) == tokenizer.decode_all(self.format.encode(rendered))
                return joined if same else None
        return None
