"""What was computed stays: a line of JSON for every answer, written as it comes, and found again by what was asked."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import msgspec

from specsim import __version__
from specsim.records import Records

T = TypeVar("T", bound=msgspec.Struct)

#: the first line of every journal
SCHEMA: Final = b'{"schema":"specsim.sweep/2"}'
#: packages, below that of `specsim`, whose code an answer depends on; and its own modules
ANSWERING: Final = ("", "cost", "schedule", "simulator", "planner", "whatif")


def key(*asked: Any) -> str:
    """A name for what was asked, and of which code: equal for equal values, on any machine."""
    return hashlib.sha256(repr((__version__, code(), *asked)).encode()).hexdigest()[:24]


@cache
def code() -> str:
    """A digest of the sources that make an answer, so that none of an older model is taken for one of this."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for package in ANSWERING:
        for source in sorted((root / package).glob("*.py")):
            digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:24]


class Journal(Generic[T]):
    """Answers of one `kind` by key, those that the file at `path` has and those appended. Without a path they are only
    kept here. Used in a `with`, for the length of which no other process can have the file.

    Raises InputError for a file that is no journal, which is left as it is, or that another process has.
    """

    def __init__(self, path: Path | None, kind: type[T]) -> None:
        self.path, self.kind, self.answers = path, kind, dict[str, T]()
        self._records: Records | None = None

    def __enter__(self) -> Self:
        if self.path is not None:
            self._records = Records(self.path, SCHEMA, "sweep")
            for record in self._records.read():
                try:
                    name, found = msgspec.json.decode(record, type=tuple[str, self.kind])  # type: ignore[name-defined]
                except msgspec.DecodeError:
                    continue  # of an older version: it is computed anew
                self.answers[name] = found
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._records is not None:
            self._records.close()

    def append(self, name: str, found: T) -> None:
        self.answers[name] = found
        if self._records is not None:
            self._records.append(msgspec.json.encode((name, found)))
