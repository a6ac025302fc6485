"""The journal of a run: what it was asked for, then every committed token, so that a run that was cut off goes on.

The first record says what was asked for. Each one after it is a list of commits, [request, at, tokens, proposed,
accepted], `at` being how many tokens the request's output had before, and the last two what the draft had to do with
it. A commit is never split, as sampled tokens depend on where rounds begin.
The last record says that the run is over.
"""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from executor.batches import Commit
from specsim.errors import InputError
from specsim.records import Records
from specsim.simulator.lengths import UNSEEN, Seen

JOURNAL: Final = "journal.jsonl"
SCHEMA: Final = b'{"schema":"specsim.run/1"}'
#: seconds between two moments at which all is on the disk
SYNC_S: Final = 1.0
_OVER: Final = b'{"over":true}'
_COMMITS: Final = list[tuple[int, int, list[int], int, int]]


class Asked(msgspec.Struct, frozen=True):
    """What a run is asked for: its options, and all that its tokens depend on, by name."""

    options: dict[str, Any]
    identity: dict[str, Any]


class Journal:
    """The journal in `directory`, which is made. `begun` is what the run that it tells of was asked for, None where no
    run has begun; `committed` are the output tokens of each request by its index, `seen` what
    their rounds have shown of the draft, `over` whether all was done.

    Used in a `with`, for the length of which no other process can have it. Raises InputError where that cannot be.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / JOURNAL
        self.begun: Asked | None = None
        self.committed: dict[int, array[int]] = {}
        self.seen: dict[int, Seen] = {}
        self.over = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise InputError(what, where=str(self.path), hint="choose another -o") from None
        self._records = Records(self.path, SCHEMA, "run")
        try:
            self._read()
        except BaseException:
            self.close()
            raise
        self._lengths = {index: len(tokens) for index, tokens in self.committed.items()}
        self._pending: list[tuple[int, int, tuple[int, ...], int, int]] = []
        self._synced = time.monotonic()
        self._dirty = False

    def begin(self, asked: Asked) -> None:
        """Say what the run is asked for, before anything of it is done; what was before is forgotten."""
        self._records.clear()
        self._records.append(msgspec.json.encode(asked))
        self._records.sync()

    def record(self, commit: Commit) -> None:
        """Note a commit, on the stream that makes it: nothing is written yet."""
        at = self._lengths.get(commit.request, 0)
        self._lengths[commit.request] = at + len(commit.tokens)
        self._pending.append((commit.request, at, commit.tokens, commit.proposed, commit.accepted))

    def write(self) -> None:
        """Write what was noted, all in one record, and every `SYNC_S` seconds wait until it is on the disk.

        Raises InputError where that fails. What an interrupt then leaves noted is written again: readers skip it.
        """
        if noted := self._pending[:]:
            self._records.append(msgspec.json.encode(noted))
            del self._pending[: len(noted)]
            self._dirty = True
        if self._dirty and time.monotonic() - self._synced >= SYNC_S:
            self.sync()

    def sync(self) -> None:
        self._records.sync()
        self._synced, self._dirty = time.monotonic(), False

    def end(self) -> None:
        """Say that all was done."""
        self._records.append(_OVER)
        self._records.sync()

    def close(self) -> None:
        self._records.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        records = self._records.read()
        first = next(records, None)
        if first is None:
            return
        self.begun = _asked(first, self.path)
        try:
            for record in records:
                if record == _OVER:
                    self.over = True
                    continue
                for index, at, tokens, proposed, accepted in msgspec.json.decode(record, type=_COMMITS):
                    known = self.committed.setdefault(index, array("I"))
                    if at > len(known):
                        raise ValueError(f"tokens {len(known)} to {at - 1} of request {index} are missing")
                    if at < len(known):
                        continue  # written twice
                    if not 0 <= accepted <= proposed:
                        raise ValueError(f"{accepted} of {proposed} proposed tokens of request {index} were accepted")
                    known.extend(tokens)
                    self.seen[index] = self.seen.get(index, UNSEEN).after(proposed, accepted)
        except (ValueError, OverflowError, TypeError) as error:  # its checksums are right: a crash cannot do that
            what = f"is not as a run writes it: {error}"
            raise InputError(what, where=str(self.path), hint="run again with another -o") from None


def read_begun(directory: Path) -> Asked | None:
    """What the run in `directory` was asked for, None where none has begun. Raises InputError where there is no
    journal, or a process is writing it."""
    path = directory / JOURNAL
    if not path.is_file():
        hint = "give the directory of a run that was begun, or its plan, --target and --prompts to begin one"
        raise InputError("there is none, so there is no run to go on with", where=str(path), hint=hint)
    with Records(path, SCHEMA, "run") as records:
        first = next(records.read(), None)
    return None if first is None else _asked(first, path)


def _asked(record: bytes, path: Path) -> Asked:
    try:
        return msgspec.json.decode(record, type=Asked)
    except msgspec.DecodeError as error:
        hint = "run again with another -o"
        raise InputError(f"does not say what the run was asked for: {error}", where=str(path), hint=hint) from None
