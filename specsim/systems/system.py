"""What a published system is, as far as its speed goes: a policy, stages made of passes, a memory rule, a way to count.

A system's file says how one pass over the layers is laid (which copies and computations, on which streams, after what);
the simulator then runs these tasks on a machine like those of our own plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from specsim.case import Case
from specsim.cost.shapes import PassShape, decode_shape
from specsim.systems.layers import Pass

Bytes = Mapping[str, float]

#: two-point Gauss quadrature: exact for what grows with a context up to its third power
NODES = (0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5)


@dataclass(frozen=True, slots=True)
class Policy:
    """A system's numbers. `batch` sequences pass together (a mean need not be whole), `blocks` such batches run per
    job; all prompts are padded to `padded` positions; `prefill_batch` sequences per prefill sweep (0: the batch); with
    a draft, `gamma` candidates (a tree's depth) out of `width` per step, for `draft_batch` sequences at a time."""

    batch: float
    padded: float
    blocks: int = 1
    prefill_batch: float = 0
    gamma: int = 0
    draft_batch: int = 0
    width: int = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """`times` passes alike, each laid by `lay`. `shapes` are what a pass computes at points spread evenly over the
    stage, as contexts grow meanwhile; `phase` is "prefill" or "decode"."""

    phase: str
    times: float
    lay: Callable[[Pass], None]
    shapes: tuple[PassShape, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a system: `counted` tokens are those that it reports, `useful` those that its requests asked for."""

    stages: tuple[Stage, ...]
    counted: float
    useful: float


@dataclass(frozen=True, slots=True)
class System:
    """A published system. `choose` is its own policy search (or its users' habit) and raises InfeasibleError where
    nothing fits; `job` says what running a policy takes; `memory` gives peak bytes by memory ("vram", "ram");
    `drafts`: it needs a draft model."""

    name: str
    title: str
    choose: Callable[[Case], Policy]
    job: Callable[[Case, Policy], Job]
    memory: Callable[[Case, Policy], Bytes]
    drafts: bool = False


def decode(case: Case, times: float, lay: Callable[[Pass], None], rows: float, first: float, last: float) -> Stage:
    """`times` plain decode steps of `rows` sequences whose context grows from `first` to `last` positions."""
    window = case.target.sliding_window
    return Stage("decode", times, lay, tuple(decode_shape(rows, 1, first + x * (last - first), window) for x in NODES))
