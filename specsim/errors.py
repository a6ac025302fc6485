"""Errors as a tree: each one speaks to the user in one line and knows its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpecsimError(Exception):
    """Root of every error that specsim raises on purpose. Subclasses set `exit_status`."""

    exit_status = 2


class InputError(SpecsimError):
    """Something that the user gave is wrong: what, where, the value, what to do."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        place = f"{where}: " if where else ""
        advice = f"; {hint}" if hint else ""
        super().__init__(f"{place}{what}{advice}")


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
