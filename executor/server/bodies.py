"""What a client sends: the fields of OpenAI's completions and chat completions that are understood, and no others.

Fields that would change the answer in a way that is not built are known by their neutral values, so that clients may
send these; any other value, and any other field, is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from starlette.requests import Request

from executor.chatformat import Message
from executor.server.errors import ApiError

#: values with which a field asks for nothing
NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "presence_penalty": (None, 0.0),
    "frequency_penalty": (None, 0.0),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "echo": (None, False),
    "audio": (None,),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "metadata": (None, {}),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "service_tier": (None, "auto", "default"),
    "verbosity": (None,),
    "web_search_options": (None,),
    "suffix": (None, ""),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
}


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both have. `user` and `store` are taken and mean nothing here."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    store: bool | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage(self) -> bool:
        """Whether a stream ends with what it has cost."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionBody(Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    prompt: str | list[int | str]
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: int | None = None


Nothing = Annotated[list[Any], msgspec.Meta(max_length=0)]


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="text", tag_field="type"):
    text: str


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last fields are those of an answer, which clients send back as they got it: nothing is in them here."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing | None = None
    annotations: Nothing | None = None

    def __post_init__(self) -> None:
        if self.content is None and self.role != "assistant":
            raise ValueError(f"a message of the {self.role} has no content")

    @property
    def plain(self) -> Message:
        """As chat templates take it: they know no developer."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatBody(Body, frozen=True, forbid_unknown_fields=True, kw_only=True):
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None  # of tools, which there are none of
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    metadata: Any = None
    modalities: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    service_tier: Any = None
    verbosity: Any = None
    web_search_options: Any = None


B = TypeVar("B", bound=Body)


async def read(request: Request, kind: type[B], limit: int) -> B:
    """The body of a request, of at most `limit` bytes. Raises ApiError with the field that is wrong."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise ApiError(413, f"the request is larger than {limit} bytes")
    try:
        body = msgspec.json.decode(bytes(data), type=kind)
    except msgspec.ValidationError as error:
        found = re.search(r"`\$\.(\w+)|field `(\w+)`", str(error))
        raise ApiError(400, str(error), param=found and (found[1] or found[2])) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    for field, neutral in NEUTRAL.items():
        value = getattr(body, field, None)
        if not any(type(value) is type(each) and value == each for each in neutral):  # 0 is no False
            shown = msgspec.json.encode(value).decode()[:60]
            raise ApiError(400, f"{field} is {shown}, which is not supported", param=field, code="unsupported_value")
    return body
