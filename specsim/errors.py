"""Errors as a tree: each one speaks to the user in one line and knows its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

#: characters of each part of a message
_LONGEST: Final = 2000


class Terminated(KeyboardInterrupt):
    """SIGTERM: whatever is cleaned up after Ctrl-C is cleaned up after it, too."""


class SpecsimError(Exception):
    """Root of every error that specsim raises on purpose. Subclasses set `exit_status`."""

    exit_status = 2


class InputError(SpecsimError):
    """Something that the user gave is wrong: what, where, the value, what to do."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        place = f"{_line(where)}: " if where else ""
        advice = f"; {_line(hint)}" if hint else ""
        super().__init__(f"{place}{_line(what)}{advice}")


def _line(text: str) -> str:
    """`text` on one line that a terminal shows and does not obey, cut where it is long: much of it is from files."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    return character if character.isprintable() else " " if character in "\n\r\t" else ascii(character)[1:-1]


class UnitError(InputError):
    """A quantity without a unit, with the unit of another dimension, or not positive."""


class UnknownNameError(InputError):
    """A name that no profile has. Near matches are offered."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> None:
        self.name, self.known = name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.known)}"
        super().__init__(f"unknown {kind} {name!r}", where=where, hint=hint)


class InfeasibleError(SpecsimError):
    """No plan fits. Not a crash but an answer: which memory is short, where, by how much, what would fit."""

    exit_status = 1
