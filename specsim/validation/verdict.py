"""The terms of a prediction's error in the order of their weight, and the sentence that names the one most wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from specsim.validation.terms import KindError
from specsim.validation.throughput import Comparison

#: what a person calls the quantity behind each kind of task, and the tasks themselves
_TERMS: Final = {
    ("disk", "read"): ("disk bandwidth", "reads"),
    ("disk", "load"): ("disk bandwidth", "reads"),
    ("h2d", "load"): ("link bandwidth", "weights coming over the link"),
    ("h2d", "kv"): ("link bandwidth", "caches coming over the link"),
    ("h2d", "transfer"): ("link bandwidth", "activations coming over the link"),
    ("h2d", "embed"): ("link bandwidth", "embeddings coming over the link"),
    ("d2h", "kv"): ("link bandwidth", "caches going back over the link"),
    ("d2h", "transfer"): ("link bandwidth", "activations going back over the link"),
}
_WORK: Final = {
    "attention": "attention",
    "ffn": "FFN products",
    "head": "logits",
    "draft": "drafting",
    "embed": "embedding lookups",
}
#: parts of the error that count as all of it, and as more
WHOLE, OVERSHOT = 0.99, 1.2
_SAY: Final = {"gpu": "the GPU", "cpu": "the CPU"}


@dataclass(frozen=True, slots=True)
class Term:
    """One cause of the error. `share` is in parts of the planned time (see `Comparison`): the shares of all terms sum
    to the error. `why` says what was seen."""

    name: str
    share: float
    why: str


def terms(found: Comparison) -> list[Term]:
    """All causes, the heaviest first. Kinds of tasks that one quantity of the machine's profile prices are one term."""
    machine: dict[str, list[KindError]] = {}
    for row in found.machine.kinds:
        machine.setdefault(term_of(row.resource, row.kind)[0], []).append(row)
    causes = [
        Term(name, sum(found.share(row.explains_s) for row in rows), _why(rows)) for name, rows in machine.items()
    ]
    seen, assumed = found.measured_per_round, found.assumed_per_round
    causes += [
        Term(
            "acceptance",
            found.acceptance_share,
            f"{seen:.2f} tokens a round were accepted, not {assumed:.2f}",
        ),
        Term("the requests", found.requests_share, "they differed more in luck or length than the plan supposed"),
        Term("time between tasks", found.share(found.machine.between_s), "what could begin began later"),
    ]
    return sorted((cause for cause in causes if cause.share), key=lambda cause: -abs(cause.share))


def term_of(resource: str, kind: str) -> tuple[str, str]:
    """The quantity that prices a kind of task, and what a person calls such tasks."""
    if (resource, kind) in _TERMS:
        return _TERMS[resource, kind]
    work = _WORK.get(kind, kind)
    return f"{work} on {_SAY.get(resource, resource)}", work


def sentence(found: Comparison) -> str:
    """One sentence: how wrong the prediction was, and the term that made it so: the heaviest of those that push it to
    the side on which it is wrong."""
    error = found.error
    wrong = f"the predicted throughput is {_points(error)} % too {'high' if error > 0 else 'low'}"
    causes = [cause for cause in terms(found) if cause.share * error > 0]
    if not causes:
        return f"{wrong}."
    worst = causes[0]
    part = worst.share / error
    if part > OVERSHOT:
        much = f"alone would make an error of {_points(worst.share)} %, and others make up for some of that"
    elif part > WHOLE:
        much = f"explains all of the {_points(error)} % error"
    else:
        much = f"explains {_points(worst.share)} of the {_points(error)} % error"
    return f"{worst.name}: {worst.why}, which {much}; {wrong}."


def _why(rows: list[KindError]) -> str:
    """How much longer the tasks of a term took than was predicted, those together that most of it is about."""
    heaviest = max(rows, key=lambda row: abs(row.explains_s))
    what = term_of(heaviest.resource, heaviest.kind)[1]
    if heaviest.ratio is None:
        return f"{what} were predicted to take no time"
    times = f"{heaviest.ratio:.2g}" if heaviest.ratio < 10 else f"{heaviest.ratio:.0f}"
    return f"{what} took {times}x what was predicted"


def _points(share: float) -> str:
    return f"{abs(100 * share):.0f}" if abs(share) >= 0.0095 else f"{abs(100 * share):.1f}"
