"""Prompts from a file of JSON lines: every line a request, and every mistake named by its line.

A line is `{"prompt": "..."}` or `{"input_ids": [...]}`, with `id`, `max_new_tokens` and `stop` (a string or a list)
where they are wanted. Blank lines are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

from executor.requests import Request
from executor.tokenizer import Tokenizer
from specsim.bounded import loads
from specsim.errors import InputError, UnknownNameError
from specsim.workload import Workload

#: of a line: some hundred times the text of the longest contexts
MAX_LINE_BYTES: Final = 2**26
KEYS: Final = ("prompt", "input_ids", "id", "max_new_tokens", "stop")
EXAMPLE: Final = 'such as {"prompt": "Once upon a time"}'


def read_prompts(
    path: str | Path,
    *,
    tokenizer: Tokenizer | None,
    vocab: int,
    positions: int,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    eos: Collection[int] = (),
    limit: int | None = None,
) -> list[Request]:
    """The first `limit` requests of a prompts file, all where it is None.

    `max_new_tokens` and `stop` hold for lines that have none of their own; a line without `id` gets its number.
    `vocab` is the model's vocabulary, `positions` its context, both in tokens. Raises InputError with the line.
    """
    with _opened(Path(path)) as file:
        return parse_prompts(
            file,
            str(path),
            tokenizer=tokenizer,
            vocab=vocab,
            positions=positions,
            max_new_tokens=max_new_tokens,
            stop=stop,
            eos=eos,
            limit=limit,
        )


def parse_prompts(
    file: BinaryIO,
    path: str,
    *,
    tokenizer: Tokenizer | None,
    vocab: int,
    positions: int,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    eos: Collection[int] = (),
    limit: int | None = None,
) -> list[Request]:
    """The requests in an open file, as `read_prompts`; `path` is its name in messages."""
    if stop and tokenizer is None:
        raise InputError(
            f"cannot look for the stop string {stop[0]!r}: the model has no tokenizer", hint="leave it out"
        )
    requests: list[Request] = []
    line_of: dict[str, int] = {}
    for number, raw in islice(_lines(file, path), limit):
        try:
            data = _object(raw)
            request = Request(
                index=len(requests),
                id=_id(data, number),
                prompt=_prompt(data, tokenizer, vocab),
                max_new_tokens=_max_new_tokens(data, max_new_tokens),
                stop=_stop(data, stop, tokenizer),
                eos=frozenset(eos),
            )
            _check_length(request, positions)
            if request.id in line_of:
                hint = "give every request an id of its own"
                raise InputError(f"id {request.id!r} is that of line {line_of[request.id]} too", hint=hint)
        except InputError as error:
            raise InputError(error.what, where=f"{path}, line {number}", hint=error.hint) from None
        line_of[request.id] = number
        requests.append(request)
    if not requests:
        raise InputError("has no prompts", where=path, hint=f"write a line for each, {EXAMPLE}")
    return requests


def check_against_plan(requests: Sequence[Request], workload: Workload) -> None:
    """Raise InputError for the first request that is longer than those whose memory the plan has counted."""
    longest = max(len(request.prompt) for request in requests)
    most = max(request.max_new_tokens for request in requests)
    hint = f"plan again with --prompt-tokens {longest} --output-tokens {most}"
    for request in requests:
        given, planned = len(request.prompt), workload.prompt_tokens_max
        if given > planned:
            what = f"the prompt has {given} tokens, the plan allows for {planned}"
            raise InputError(what, where=f"request {request.id!r}", hint=hint)
        if request.max_new_tokens > workload.output_tokens:
            what = f"max_new_tokens is {request.max_new_tokens}, the plan allows for {workload.output_tokens}"
            raise InputError(what, where=f"request {request.id!r}", hint=hint)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint="give a file of prompts") from None


def _lines(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise InputError(f"is longer than {MAX_LINE_BYTES} bytes", where=f"{path}, line {number}", hint="cut it")
        line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw  # a byte order mark
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        data = loads(raw)
    except UnicodeDecodeError as error:
        hint = "save the file as UTF-8"
        raise InputError(f"is not UTF-8: byte {error.start + 1} is 0x{raw[error.start]:02x}", hint=hint) from None
    except json.JSONDecodeError as error:
        what = f"is not JSON: {error.msg} at character {error.pos + 1}"
        raise InputError(what, hint=f"write one JSON object a line, {EXAMPLE}") from None
    except ValueError as error:  # a key twice, a number of thousands of digits, lists in lists in lists
        raise InputError(f"is not JSON that can be read: {error}", hint=f"write an object {EXAMPLE}") from None
    if not isinstance(data, dict):
        raise InputError("is not a JSON object", hint=f"write one JSON object a line, {EXAMPLE}")
    for key in data:
        if key not in KEYS:
            raise UnknownNameError("key", key, KEYS)
    return data


def _id(data: dict[str, Any], number: int) -> str:
    value = data.get("id", number)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"id is {value!r}", hint="give a string or a whole number")
    return _encodable("id", str(value))


def _prompt(data: dict[str, Any], tokenizer: Tokenizer | None, vocab: int) -> tuple[int, ...]:
    match "prompt" in data, "input_ids" in data:
        case True, True:
            raise InputError("has both prompt and input_ids", hint="give one of them")
        case False, False:
            raise InputError("has neither prompt nor input_ids", hint="give one of them")
        case True, _:
            ids = _tokens(data["prompt"], tokenizer)
        case _:
            ids = data["input_ids"]
            if not isinstance(ids, list):
                raise InputError(f"input_ids is {_short(ids)}", hint="give a list of token ids")
    if not ids:
        raise InputError("the prompt is empty", hint="give at least one token")
    for place, token in enumerate(ids):
        if isinstance(token, bool) or not isinstance(token, int):
            raise InputError(f"input_ids[{place}] is {_short(token)}", hint="token ids are whole numbers")
        if not 0 <= token < vocab:
            hint = f"give 0 to {vocab - 1}" if "input_ids" in data else "the model's tokenizer is that of another one"
            raise InputError(f"token {place} is {token}, the model has {vocab} tokens", hint=hint)
    return tuple(ids)


def _tokens(text: Any, tokenizer: Tokenizer | None) -> list[int]:
    if not isinstance(text, str):
        raise InputError(f"prompt is {_short(text)}", hint="give a string, or token ids as input_ids")
    if tokenizer is None:
        raise InputError("prompt is text, and the model has no tokenizer", hint="give token ids as input_ids")
    return tokenizer.encode(_encodable("prompt", text)) if text else []


def _max_new_tokens(data: dict[str, Any], default: int) -> int:
    value = data.get("max_new_tokens", default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"max_new_tokens is {_short(value)}", hint="give a whole number from 1 on")
    return value


def _stop(data: dict[str, Any], default: Sequence[str], tokenizer: Tokenizer | None) -> tuple[str, ...]:
    value = data.get("stop", list(default))
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"stop is {_short(value)}", hint="give a string that is not empty, or a list of such")
    if texts and tokenizer is None:
        raise InputError(f"stop is {_short(value)}, and the model has no tokenizer", hint="leave it out")
    return tuple(_encodable("stop", text) for text in texts)


def _check_length(request: Request, positions: int) -> None:
    needed = len(request.prompt) + request.max_new_tokens
    if needed > positions:
        what = f"{len(request.prompt)} prompt tokens and {request.max_new_tokens} new ones make {needed}, "
        room = positions - len(request.prompt)
        hint = f"set max_new_tokens to {room} or less" if room > 0 else "shorten the prompt"
        raise InputError(f"{what}the model's context is {positions}", hint=hint)


def _encodable(key: str, text: str) -> str:
    """`text`, if it can be written as UTF-8: JSON can spell half a surrogate pair, which is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        what = f"{key} has half a surrogate pair, {text[error.start]!a}, at character {error.start + 1}"
        raise InputError(what, hint="write the whole character") from None
    return text


def _short(value: Any) -> str:
    """`value` as JSON has it, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
