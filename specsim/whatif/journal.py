"""What was computed stays: a line of JSON for every answer, written as it comes, and found again by what was asked."""

from __future__ import annotations

import fcntl
import hashlib
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Generic, Self, TypeVar

import msgspec

from specsim import __version__
from specsim.errors import InputError

T = TypeVar("T", bound=msgspec.Struct)

#: the first line of every journal
HEADER: Final = b'{"schema":"specsim.sweep/1"}\n'
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
    kept here. Used in a `with`, for the length of which no other process can have the file. A last line that a killed
    process left half written is cut off.

    Raises InputError for a file that is no journal, which is left as it is, or that another process has.
    """

    def __init__(self, path: Path | None, kind: type[T]) -> None:
        self.path, self.kind, self.answers = path, kind, dict[str, T]()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if self.path is not None:
            self._file = _locked(self.path)
            try:
                self._read(self._file)
            except BaseException:
                self._file.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, name: str, found: T) -> None:
        self.answers[name] = found
        if self._file is not None:
            self._file.write(msgspec.json.encode((name, found)) + b"\n")
            self._file.flush()  # each time, so that a kill loses one answer at most

    def _read(self, file: IO[bytes]) -> None:
        file.seek(0)
        written = file.read()
        if not written.startswith(HEADER):
            if written and not HEADER.startswith(written):  # a kill may have cut the header itself
                hint = "give -o another name, or move that file away"
                raise InputError("is no journal of a sweep, and is left as it is", where=str(self.path), hint=hint)
            file.truncate(0)
            file.write(HEADER)
            file.flush()
            return
        *lines, half = written.removeprefix(HEADER).split(b"\n")
        for line in lines:
            try:
                name, found = msgspec.json.decode(line, type=tuple[str, self.kind])  # type: ignore[name-defined]
            except msgspec.DecodeError:
                continue  # of an older version: it is computed anew
            self.answers[name] = found
        file.truncate(len(written) - len(half))


def _locked(path: Path) -> IO[bytes]:
    """The file, made where there is none, to be read and appended to by this process only."""
    try:
        file = path.open("a+b")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        hint = "wait for it, or give -o another name"
        raise InputError("another sweep is writing it", where=str(path), hint=hint) from None
    return file
