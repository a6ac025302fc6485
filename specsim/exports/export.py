"""What an export is: files for an engine, what it needs besides, what of the plan is lost, and how fast it would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from specsim.answer import Plan
from specsim.profiles import root
from specsim.yamlfile import read_yaml


class Loss(NamedTuple):
    """Something of a plan that an engine cannot do: what it is, how the plan has it, and what happens instead."""

    what: str
    plan: str
    here: str


@dataclass(frozen=True, slots=True)
class Speed:
    """Useful tokens/s that specsim predicts of an exported configuration, and by which of its models; None where it
    has none, `basis` then says why."""

    tokens_per_second: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Export:
    """A plan for an engine: `files` by name, the command that runs them, and in words what else is needed."""

    engine: str
    title: str
    version: str
    command: str
    files: Mapping[str, str]
    needs: tuple[str, ...]
    lost: tuple[Loss, ...]
    speed: Speed


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine to export for. `export` raises InputError for a plan that it cannot run at all, and InfeasibleError
    where memory is short for the way in which it works."""

    name: str
    title: str
    export: Callable[[Plan], Export]


@dataclass(frozen=True, slots=True)
class Documented:
    """The flags of an engine that its documentation has: `version` is that of the documentation."""

    version: str
    sources: tuple[str, ...]
    flags: frozenset[str]


def documented(name: str) -> Documented:
    """What is known of an engine's flags: profiles/engines."""
    data = read_yaml(root() / "engines" / f"{name}.yaml")
    return Documented(data["version"], tuple(data["sources"]), frozenset(data["flags"]))
