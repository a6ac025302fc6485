"""Files of strangers: read up to a size, and their JSON up to a depth, so that none can take all memory or time."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any, Final

from specsim.errors import InputError

#: a plan of 126 layers with tails takes 0.2 MB, a checkpoint's index of 100,000 tensors 10 MB
MAX_BYTES: Final = 64 * 2**20
#: what we read nests 12 deep at most; far below what recursion over a value can bear
MAX_DEPTH: Final = 64


def read_bounded(path: str | Path, *, most: int = MAX_BYTES, pipe: bool = False) -> bytes:
    """All of a file. Raises InputError where it cannot be read, has more than `most` bytes, or is no regular file: a
    pipe that nobody writes to would block for ever. `pipe` allows one, for files that a user names."""
    try:
        if not pipe and not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError("cannot be read: it is not a regular file", where=str(path))
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte or half a surrogate pair in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be read: {reason}", where=str(path)) from None
    if len(content) > most:
        raise InputError(f"has more than {most} bytes", where=str(path), hint="is it the right file?")
    return content


def loads(text: str | bytes) -> Any:
    """`json.loads`, but strict: in bytes UTF-8 alone, no key twice, nested at most `MAX_DEPTH` deep, so that nothing
    that recurses over the value later, `repr` for one, can run out of stack. Raises ValueError."""
    try:
        value = json.loads(text.decode("utf-8") if isinstance(text, bytes) else text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def read_json(path: str | Path, *, hint: str) -> Any:
    """The value in a JSON file. Raises InputError with `hint` where there is none."""
    try:
        return loads(read_bounded(path))
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", where=str(path), hint=hint) from None


def short(text: str) -> str:
    """A name from a file, fit for one line of a message."""
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def _inside(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for one in inner if isinstance(one, dict | list)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it has {short(name)} twice")
    return made
