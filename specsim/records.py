"""A file that only grows: after a first line that says what it is, a record a line, each with its checksum.

What a crash left half written, or a disk gave back wrong, is known by that: the records before it count, and it is cut
off with all that follows it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from specsim.errors import InputError


class Records:
    """The file at `path`, made where there is none, of which `schema` is the first line and `of` names what keeps it.
    Used in a `with`, for the length of which no other process can have it.

    Raises InputError for a file that begins otherwise, which is left as it is, or that another process has.
    """

    def __init__(self, path: Path, schema: bytes, of: str) -> None:
        self.path, self.schema = path, schema + b"\n"
        self._named = False  # whether the directory is known to be on the disk with the file's name
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise InputError(what, where=str(path), hint="give -o another name") from None
        try:
            self._lock(of)
            self._size = os.fstat(self._file).st_size
            self._begin(of)
        except BaseException:
            self.close()
            raise

    def read(self) -> Iterator[bytes]:
        """Every record up to the first that is not whole; once that is reached, the file ends before it."""
        good = len(self.schema)
        with open(os.dup(self._file), "rb") as file:
            file.seek(good)
            for line in file:
                record = _record(line)
                if record is None:
                    break
                good += len(line)
                yield record
        self._cut(good)

    def append(self, record: bytes) -> None:
        """Add a record, which has no line break: it is with the operating system on return. Raises InputError, as on a
        full disk, and nothing of it stays then."""
        self._append(b"%08x %b\n" % (zlib.crc32(record), record))

    def clear(self) -> None:
        """Forget all records."""
        self._cut(len(self.schema))

    def sync(self) -> None:
        """Return when everything is on the disk, at the first time its name too. Raises InputError where that fails."""
        try:
            os.fdatasync(self._file)
            if not self._named:
                sync_file(self.path.parent)
                self._named = True
        except OSError as error:
            raise self._lost(error) from None

    def close(self) -> None:
        """May be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _lock(self, of: str) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait for it, or give -o another name"
            raise InputError(f"another {of} is writing it", where=str(self.path), hint=hint) from None
        except OSError as error:  # of a network's file system, say
            hint = "give -o a name on a local disk"
            raise InputError(f"cannot be locked: {error.strerror}", where=str(self.path), hint=hint) from None

    def _begin(self, of: str) -> None:
        """Check the first line, or write it where there is none. A kill may have cut that line itself."""
        found = os.pread(self._file, len(self.schema), 0)
        if found != self.schema:
            if not self.schema.startswith(found):
                hint = "give -o another name, or move that file away"
                raise InputError(f"is no journal of a {of}, and is left as it is", where=str(self.path), hint=hint)
            self._cut(0)
            self._append(self.schema)

    def _append(self, line: bytes) -> None:
        try:
            if os.fstat(self._file).st_size > self._size:
                os.ftruncate(self._file, self._size)  # a part of a line that could not be taken back then
            append_whole(self._file, line, self._size)
        except OSError as error:
            raise self._lost(error) from None
        self._size += len(line)

    def _lost(self, error: OSError) -> InputError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = f"it keeps all before; {'make room' if full else 'mend the disk'} and go on from there"
        return InputError(f"cannot be written: {error.strerror}", where=str(self.path), hint=hint)

    def _cut(self, size: int) -> None:
        if size < self._size:
            try:
                os.ftruncate(self._file, size)
            except OSError as error:
                raise self._lost(error) from None
            self._size = size


def append_whole(file: int, line: bytes, size: int) -> None:
    """Write `line` at the end of a file of `size` bytes. Raises OSError, as on a full disk; the part of the line that
    was written is taken back then."""
    rest = memoryview(line)
    try:
        while rest:  # a disk that fills up takes a part first, and refuses the next
            rest = rest[os.write(file, rest) :]
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.ftruncate(file, size)
        raise


def sync_file(path: Path) -> None:
    """Return when what a file holds is on the disk, or the names in a directory. Raises OSError where that fails; a
    file system or a device that knows no such thing is none of that."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)


def _record(line: bytes) -> bytes | None:
    """What a whole line says."""
    if line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    record = line[9:-1]
    return record if line[:8] == b"%08x" % zlib.crc32(record) else None
