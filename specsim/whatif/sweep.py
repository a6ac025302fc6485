"""A sweep: the same question with other numbers, planned anew at every point of a grid.

Points are planned in any order, by any number of processes, on this machine or a cluster, and interrupted at will: the
answer to a point depends on nothing but the point and the question that is varied. That question, in every combination
of varied names, is searched in full first, and what wins there is where points start from (`planner.replan`); where
acceptance is varied it is searched at a low one and at a high one instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from specsim.case import Case
from specsim.errors import InputError
from specsim.planner.candidates import Fixed, check
from specsim.planner.layouts import search_all
from specsim.planner.replan import ENDS, Carried, carry, together
from specsim.whatif.answer import Answer, answer
from specsim.whatif.cluster import workers
from specsim.whatif.journal import Journal, key
from specsim.whatif.vary import MOST_POINTS, Axis, Field, Value

Question = tuple[Case, Fixed]
#: the question with fields at these values; raises InputError where it makes no sense
Ask = Callable[[Mapping[Field, Value]], Question]


@dataclass(frozen=True, slots=True)
class Sweep:
    """The axes, and an answer for every point in the order of `points`: the last axis moves fastest."""

    axes: tuple[Axis, ...]
    answers: tuple[Answer, ...]

    def points(self) -> Iterator[tuple[Value, ...]]:
        """The values of every point, in base units."""
        return itertools.product(*(axis.values for axis in self.axes))

    def columns(self) -> list[str]:
        """Names of the columns of `rows`: those of the fields, then those of an answer that are none of them."""
        return [*(axis.field.column for axis in self.axes), *self._told()]

    def rows(self) -> list[list[Any]]:
        """A row for every point: its values, in the units that `columns` names, and its answer."""
        return [
            [
                *(axis.field.shown(v) for axis, v in zip(self.axes, point, strict=True)),
                *(getattr(found, name) for name in self._told()),
            ]
            for point, found in zip(self.points(), self.answers, strict=True)
        ]

    def to_frame(self) -> Any:
        """The rows as a pandas DataFrame."""
        import pandas as pd  # only here: importing pandas takes as long as planning a dozen points

        return pd.DataFrame(self.rows(), columns=self.columns())

    def _told(self) -> list[str]:
        varied = {axis.field.name for axis in self.axes}
        return [name for name in Answer.__struct_fields__ if name not in varied]


def run_sweep(
    ask: Ask,
    axes: Sequence[Axis],
    *,
    thorough: bool = False,
    jobs: int = -1,
    cluster: str | None = None,
    journal: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Plan every point whose answer is not in the `journal`, in `jobs` processes (-1: one for each core) or on a
    `cluster`. `thorough` searches every point in full besides. `progress(done, all)` is told as answers come.

    Raises InputError where no point makes sense, or the journal is another program's or in use.
    """
    points = math.prod(len(axis.values) for axis in axes)
    if points > MOST_POINTS:
        raise InputError(f"{points} points are too many", where="--vary", hint=f"at most {MOST_POINTS}")
    grid = [dict(zip((axis.field for axis in axes), v, strict=True)) for v in _values(axes)]
    asked = [_asked(ask, point) for point in grid]
    if all(isinstance(question, InputError) for question in asked):
        raise asked[0] if isinstance(asked[0], InputError) else InputError("nothing is varied", where="--vary")
    bases = _bases(ask, axes, grid)
    names = [key(question, base, thorough) for question, base in zip(asked, bases, strict=True)]
    tell = progress or (lambda done, of: None)
    with Journal(journal, Answer) as book, workers(cluster):
        left = {
            name: (question, base)
            for name, question, base in zip(names, asked, bases, strict=True)
            if not isinstance(question, InputError) and name not in book.answers
        }
        run = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        first = {key(question): question for _, base in left.values() for question in base}
        carried = dict(run(joblib.delayed(_search)(name, question) for name, question in first.items()))
        tasks = (
            joblib.delayed(_answer)(name, question, [carried[key(one)] for one in base], thorough)
            for name, (question, base) in left.items()
        )
        for done, (name, found) in enumerate(run(tasks), start=len(grid) - len(left)):
            book.append(name, found)
            tell(done + 1, len(grid))
    said = [
        Answer(why=str(q)) if isinstance(q, InputError) else book.answers[n] for q, n in zip(asked, names, strict=True)
    ]
    return Sweep(tuple(axes), tuple(said))


def _values(axes: Sequence[Axis]) -> Iterator[tuple[Value, ...]]:
    return itertools.product(*(axis.values for axis in axes))


def _asked(ask: Ask, point: Mapping[Field, Value]) -> Question | InputError:
    """The question of a point. A combination that makes no sense is an answer too, of that point."""
    try:
        case, fixed = ask(point)
        check(case, fixed)
    except InputError as error:
        return error
    return case, fixed


def _bases(ask: Ask, axes: Sequence[Axis], grid: Sequence[Mapping[Field, Value]]) -> list[tuple[Question, ...]]:
    """What is varied, for each point: the question with the point's names, but its own numbers, or the first of those
    varied where it has none. Where acceptance is varied it is two questions, at either of `ENDS`; none where it makes
    no sense."""
    named = [tuple((field, value) for field, value in point.items() if field.names) for point in grid]
    first = {axis.field: axis.values[0] for axis in axes if axis.field.owner == "option" and not axis.field.names}
    ends = [{field: end for field in first if field.name == "acceptance"} for end in ENDS]
    bases = {}
    for names in dict.fromkeys(named):
        asked = [_asked(ask, {**dict(names), **end}) for end in ends]
        if any(isinstance(question, InputError) for question in asked):
            asked = [_asked(ask, {**first, **dict(names), **end}) for end in ends]
        bases[names] = tuple({key(one): one for one in asked if not isinstance(one, InputError)}.values())
    return [bases[names] for names in named]


def _search(name: str, question: Question) -> tuple[str, Carried]:
    return name, carry(*question, search_all(*question))


def _answer(name: str, question: Question, carried: Sequence[Carried], thorough: bool) -> tuple[str, Answer]:
    return name, answer(*question, together(carried) if carried else None, thorough=thorough)
