"""What a run leaves behind: outputs.jsonl, a line for each request as it finishes, and other files as a whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from executor.requests import FinishReason, Generation
from specsim.errors import InputError
from specsim.records import append_whole, sync_file
from specsim.wholefile import replace_whole

OUTPUTS: Final = "outputs.jsonl"


@dataclass(frozen=True, slots=True)
class Output:
    """A finished request. `output_ids` end with the token that ended it; `text` is None without a tokenizer."""

    id: str
    output_ids: tuple[int, ...]
    text: str | None
    finish_reason: FinishReason

    @classmethod
    def of(cls, generation: Generation) -> Output:
        """Of a request that has ended."""
        reason = generation.finish_reason
        assert reason is not None, "only what has ended is put out"
        return cls(generation.request.id, tuple(generation.output_ids), generation.text, reason)

    @property
    def useful_tokens(self) -> int:
        """All of them: nothing is kept after a request's own end."""
        return len(self.output_ids)

    def line(self) -> bytes:
        """The output as a JSON object in UTF-8, with its newline."""
        data = {
            "id": self.id,
            "output_ids": self.output_ids,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "useful_tokens": self.useful_tokens,
        }
        return json.dumps(data, ensure_ascii=False).encode("utf-8") + b"\n"


class OutputWriter:
    """Appends outputs to `directory`/outputs.jsonl, which holds whole lines only, whatever happens.

    Makes the directory. With `known`, goes on with a file that has outputs: a line that is not known is cut off, and
    all behind it. Raises InputError where the file cannot be written, and where it has outputs already otherwise.
    """

    def __init__(self, directory: str | Path, known: Callable[[bytes], bool] | None = None) -> None:
        self.path = Path(directory) / OUTPUTS
        self.written = 0
        self._bytes = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            what = f"cannot be written: {error.strerror}"
            raise InputError(what, where=str(self.path), hint="choose another -o") from None
        try:
            if known is not None:
                self._keep(known)
            elif os.fstat(self._file).st_size:
                raise InputError("has outputs already", where=str(self.path), hint="choose another -o")
        except BaseException:
            self.close()
            raise

    def write(self, output: Output) -> None:
        """Append a line; it has reached the operating system on return. Raises InputError, as on a full disk; the
        part of the line that was written is taken back then."""
        line = output.line()
        try:
            append_whole(self._file, line, self._bytes)
        except OSError as error:
            raise self._lost(error) from None
        self._bytes += len(line)
        self.written += 1

    def sync(self) -> None:
        """Return when all lines, and the names in their directory, are on the disk. Raises InputError where that
        fails."""
        try:
            sync_file(self.path)
            sync_file(self.path.parent)
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> InputError:
        hint = f"it keeps {self.written} outputs; make room, and go on with --resume"
        return InputError(f"cannot be written: {error.strerror}", where=str(self.path), hint=hint)

    def _keep(self, known: Callable[[bytes], bool]) -> None:
        with open(os.dup(self._file), "rb") as file:
            for line in file:
                if not known(line):
                    os.ftruncate(self._file, self._bytes)
                    break
                self._bytes += len(line)
                self.written += 1

    def close(self) -> None:
        """May be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> OutputWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def count_outputs(directory: str | Path) -> int:
    """Finished requests in `directory`/outputs.jsonl; 0 where there is no such file."""
    try:
        with (Path(directory) / OUTPUTS).open("rb") as file:
            return sum(line.endswith(b"\n") for line in file)
    except FileNotFoundError:
        return 0


def write_whole(path: str | Path, text: str) -> None:
    """Write a file at once or not at all. Raises InputError where that fails; an older file is kept then."""
    try:
        replace_whole(Path(path), text.encode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
