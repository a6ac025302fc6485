"""The answer to one point of a sweep: the best plan in a row's worth of numbers, or why there is none."""

from __future__ import annotations

import msgspec

from specsim.case import Case
from specsim.decision import MEMORY_OF, Decision
from specsim.memory import peak_items, totals
from specsim.partition import layer_units
from specsim.planner.anew import rate_of
from specsim.planner.candidates import Fixed, check
from specsim.planner.infeasible import shortest
from specsim.planner.layouts import search_all
from specsim.planner.replan import Carried, replan
from specsim.planner.search import Found


class Answer(msgspec.Struct, frozen=True):
    """A plan's predicted useful tokens per second and its policy. Of the weights of the target's layers, the shares
    that each memory holds and that the CPU computes with; of the memories, the peak over all phases."""

    tokens_per_second: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    strategy: str | None = None
    gamma: int | None = None
    batch: int | None = None
    in_flight: int | None = None
    ring_slots: int | None = None
    vram_share: float | None = None
    ram_share: float | None = None
    disk_share: float | None = None
    cpu_share: float | None = None
    vram_peak_bytes: float | None = None
    ram_peak_bytes: float | None = None
    why: str | None = None  # there is no plan


def answer(case: Case, fixed: Fixed, carried: Carried | None, *, thorough: bool = False) -> Answer:
    """The best plan near what was `carried` over; without that, or if `thorough` besides, the best that a full search
    finds. Raises InputError for what is fixed to something that the case does not have."""
    check(case, fixed)
    near = [replan(case, fixed, carried)] if carried is not None else []
    searched = [_searched(case, fixed)] if thorough or carried is None else []
    found = max(near + searched, key=rate_of)
    if found is None:
        return Answer(why=shortest(case, fixed)[0])
    policy, shares = found.decision.policy, _shares(case, found.decision)
    peaks = totals(peak_items(case, found.decision)).values()
    return Answer(
        found.tokens_per_second,
        found.job.prefill_s,
        found.job.decode_s,
        found.decision.strategy,
        policy.gamma,
        policy.batch,
        policy.in_flight,
        policy.ring_slots,
        shares["vram"],
        shares["ram"],
        shares["disk"],
        shares["cpu"],
        max(phase.get("vram", 0.0) for phase in peaks),
        max(phase["ram"] for phase in peaks),
    )


def _searched(case: Case, fixed: Fixed) -> Found | None:
    return next(iter(search_all(case, fixed).found), None)


def _shares(case: Case, decision: Decision) -> dict[str, float]:
    """Shares of the weights by memory, and that of the CPU."""
    sizes = dict.fromkeys(("vram", "ram", "disk", "cpu"), 0.0)
    for layer, place in enumerate(decision.layers):
        units = layer_units(case.target, case.target.layer_ffn(layer), decision.policy.part_bytes)
        of = [(place.attention.weights, place.attention.projections, units.attention_bytes)]
        of += [(part.weights, part.processor, units.part_bytes) for part in place.ffn]
        for home, processor, size in of:
            sizes[MEMORY_OF[home]] += size
            sizes["cpu"] += size * (processor == "cpu")
    whole = sizes["vram"] + sizes["ram"] + sizes["disk"]
    return {name: size / whole for name, size in sizes.items()}
