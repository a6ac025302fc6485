"""A comparison has our plans of every kind and the systems that fit, the fastest first, and says why the first wins."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from specsim.errors import InfeasibleError
from specsim.planner.compare import OURS, Comparison, Entry, compare_all
from specsim.planner.reason import sentence
from specsim.planner.search import Search
from specsim.systems.outcome import run
from specsim.systems.table import SYSTEMS
from specsim.units import GiB, MiB
from tests.specsim import plans

CASE = plans.case(vram=GiB)


@cache
def compared() -> Comparison:
    return compare_all(CASE)


def test_every_kind_of_ours_and_every_system_that_fits_has_a_row() -> None:
    found = compared()
    ours = {tuple(e.plan.split(", ")[:2]) for e in found.entries if e.ours}
    assert {strategy for strategy, _ in ours} == {"serial", "merged", "interleaved"}
    assert len(ours) == sum(e.ours for e in found.entries)
    assert {e.name for e in found.entries if not e.ours} | found.left_out.keys() == SYSTEMS.keys()
    rates = [e.tokens_per_second for e in found.entries]
    assert rates == sorted(rates, reverse=True)


def test_rows_say_what_the_planner_and_the_systems_say() -> None:
    by_name = {e.name: e for e in compared().entries}
    best = Search(CASE).run().found[0]
    assert by_name[OURS].tokens_per_second == pytest.approx(best.tokens_per_second)
    for name, entry in by_name.items():
        if not entry.ours:
            outcome = run(CASE, SYSTEMS[name])
            assert entry.tokens_per_second == pytest.approx(outcome.useful_per_s)
            assert entry.latency_s == outcome.latency_s


def test_the_figures_of_a_row_add_up_to_its_throughput() -> None:
    """Every request has its first token from its prefill, and its other ones from passes."""
    later = (CASE.workload.output_tokens - 1) / CASE.workload.output_tokens
    for e in compared().entries:
        assert 1 / e.tokens_per_second == pytest.approx(e.prefill_s + later * e.pass_s / e.tokens_per_pass)
        assert all(0 <= busy <= e.pass_s * (1 + 1e-9) for busy in e.busy_s.values())
        assert all(size <= CASE.machine.budgets()[memory] for memory, size in e.peak_bytes.items())


def test_what_needs_a_draft_or_memory_is_left_out() -> None:
    assert compare_all(CASE.plain()).left_out["specoffload"] == "needs a draft"
    small = compare_all(plans.case(vram=30 * MiB))
    assert "vram" in small.left_out["accelerate"]
    with pytest.raises(InfeasibleError):
        compare_all(plans.case(vram=1 * MiB))


FAST = Entry("fast", "many", True, 100.0, 1.0, {}, "h2d", 0.9, 0.001, 0.9, 100.0, {"h2d": 0.8, "cpu": 0.7})
SLOW = Entry("slow", "few", False, 20.0, 1.0, {}, "h2d", 1.0, 0.002, 1.92, 40.0, {"h2d": 1.9, "cpu": 0.2})


def why(*entries: Entry) -> str:
    return sentence(Comparison(CASE, entries, {}))


def test_the_reason_is_what_the_loser_waits_for() -> None:
    assert why(FAST, SLOW) == (
        "fast (many) wins, 5x slow: slow waits 100% of a pass for the link, 47.5 ms of it per useful token, "
        "fast 8.00 ms, as a pass brings 100 useful tokens instead of 40 and a pass keeps it busy for 800 ms "
        "instead of 1.90 s; the CPU is busy 78% of the time instead of 10%."
    )


def test_the_reason_may_be_prefill() -> None:
    slow = replace(SLOW, tokens_per_second=50.0, prefill_s=0.011)
    expected = "fast (many) wins, 2x slow: reading prompts takes 1.00 ms per useful token instead of 11.0 ms."
    assert why(FAST, slow) == expected


def test_the_rival_is_the_best_of_the_other_camp() -> None:
    twin = replace(FAST, name="twin", tokens_per_second=99.0)
    assert "slow waits" in why(FAST, twin, SLOW)
    assert why(FAST, twin).startswith("fast (many) wins, 1.01x twin: twin waits 90% of a pass for the link")
    assert why(FAST) == "fast wins: nothing else fits."
