"""What was computed stays: a line of JSON for every answer, written as it comes, and found again by what was asked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from specsim import __version__

T = TypeVar("T", bound=msgspec.Struct)


def key(*asked: Any) -> str:
    """A name for what was asked, and of which version: equal for equal values, on any machine."""
    return hashlib.sha256(repr((__version__, *asked)).encode()).hexdigest()[:24]


class Journal(Generic[T]):
    """Answers of one `kind` by key, those that the file at `path` has and those appended. Without a path they are only
    kept here. A last line that a killed process left half written is cut off."""

    def __init__(self, path: Path | None, kind: type[T]) -> None:
        self.path, self.answers = path, dict[str, T]()
        if path is None or not path.exists():
            return
        *lines, half = path.read_bytes().split(b"\n")
        for line in lines:
            try:
                name, found = msgspec.json.decode(line, type=tuple[str, kind])  # type: ignore[valid-type]
            except msgspec.DecodeError:
                continue  # of an older version: it is computed anew
            self.answers[name] = found
        if half:
            os.truncate(path, path.stat().st_size - len(half))

    def append(self, name: str, found: T) -> None:
        self.answers[name] = found
        if self.path is not None:
            with self.path.open("ab") as file:  # closed each time, so that a kill loses one answer at most
                file.write(msgspec.json.encode((name, found)) + b"\n")
