"""A plan as text: an answer with round numbers, word for word."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from specsim.answer import Plan, Predicted, Provenance, RunnerUp, SearchInfo, Upgrade
from specsim.case import Case
from specsim.decision import Decision, Tail
from specsim.planner.explain import Explanation, Sensitivity
from specsim.report.text import explanation_text, plan_text, table
from tests.specsim import stories

PREDICTED = Predicted(
    tokens_per_second=50.0,
    makespan_s=90.0,
    prefill_s=30.0,
    decode_s=60.0,
    slot_s=2.0,
    tokens_per_slot=100.0,
    utilisation={"gpu": 0.25, "h2d": 0.9},
    peak_bytes={},
    bottleneck="90% of a round waits for weights coming over the link; prefill is 33% of the job",
    bound_tokens_per_second=200.0,
)
SEARCH = SearchInfo(candidates=9, feasible=3, seconds=1.0, solver="HiGHS", gap=0.0)


def answer(
    decision: Decision,
    case: Case | None = None,
    *,
    predicted: Predicted = PREDICTED,
    search: SearchInfo = SEARCH,
    assumptions: tuple[str, ...] = (),
) -> list[str]:
    """The sections of the text of a plan for the tiny model."""
    provenance = Provenance(version="1", assumptions=list(assumptions))
    plan = Plan(case or stories.case(), decision, predicted, search, provenance)
    return plan_text(plan).split("\n\n")


def test_drafting_from_the_text_is_named() -> None:
    case = Case(stories.machine(), stories.model(), stories.workload(), acceptance=stories.acceptance())
    decision = stories.decision("serial", stories.layers(stories.model()), batch=4, gamma=2)
    first, second, *_ = answer(decision, case)
    assert first.splitlines()[0] == "tiny with n-gram drafting on full, 4 x work"
    assert second.splitlines()[4] == "  draft      n-gram drafting: candidates from each sequence's own text, no model"


def test_a_plain_plan_word_for_word() -> None:
    decision = stories.decision("serial", stories.layers(stories.model()), batch=4, ring_slots=0)
    first, second, *_ = answer(decision)
    assert first.splitlines() == [
        "tiny on full, 4 x work",
        "  50.0 useful tokens/s; the job takes 1 min 30 s",
        "  roofline bound 200.0 tokens/s, of which this reaches 25%",
        "  do not speculate, serial, 1 x 4 sequences in flight",
        "  why: 90% of a round waits for weights coming over the link; prefill is 33% of the job",
    ]
    assert second.splitlines() == [
        "What runs where",
        "  attention  weights vram, on gpu (all 2 layers)",
        "  KV         vram (all 2 layers)",
        "  FFN        vram on gpu (all 2 parts)",
        "  busy       gpu 25%, h2d 90% of a round of 2.00 s",
    ]


def test_a_speculative_plan_shows_its_draft_ring_tail_and_band() -> None:
    target = stories.model()
    layers = (stories.layers(target, "cpu", "pinned")[0], stories.layers(target, "gpu", "vram")[1])
    decision = stories.decision("interleaved", layers, gamma=4, batch=2, ring_slots=3, draft=stories.on_gpu("ram"))
    decision = msgspec.structs.replace(decision, tails=(Tail(1, stories.layers(target)),))
    predicted = msgspec.structs.replace(PREDICTED, band={"0.35": 40.0, "0.65": 60.0})
    first, second, *_ = answer(decision, stories.case(draft=stories.even(vocab=10)), predicted=predicted)
    assert first.splitlines()[0] == "tiny with tiny on full, 4 x work"
    assert first.splitlines()[3:5] == [
        "  the acceptance is assumed, not measured: 40.0 at 0.35, 60.0 at 0.65",
        "  speculate with gamma 4, interleaved, 2 x 2 sequences in flight",
    ]
    lines = second.splitlines()
    assert lines[1] == "  attention  1 layer weights pinned, on cpu (projections gpu); 1 layer weights vram, on gpu"
    assert lines[2] == "  KV         1 layer ram; 1 layer vram"
    assert lines[4] == "  draft      on gpu, 1 sequences at a time, KV kept in ram"
    assert lines[5] == "  ring       3 slots for streamed weights"
    assert lines[6].startswith("  tail       from 1 sequences left, ")


def test_memory_is_by_phase_beside_the_budget() -> None:
    decision = stories.decision("serial", stories.layers(stories.model()), batch=4, ring_slots=0)
    memory = next(section for section in answer(decision) if section.startswith("Peak memory"))
    rows = [line.split() for line in memory.splitlines()]
    assert rows[1] == ["memory", "prefill", "transition", "decode", "budget", "largest", "in", "decode"]
    assert [row[0] for row in rows[2:-1]] == ["vram", "ram"]  # the disk holds nothing


def test_the_limit_that_holds_a_plan_is_its_ram_and_the_process_itself() -> None:
    decision = stories.decision("serial", stories.layers(stories.model()), batch=4, ring_slots=0)
    host = replace(stories.machine().host, process_bytes=2.0**28)
    machine = replace(stories.machine(), host=host, ram_budget_bytes=2.0**30)
    memory = next(section for section in answer(decision, stories.case(machine)) if section.startswith("Peak memory"))
    assert memory.splitlines()[-1] == "  a limit of 1.25 GiB holds the RAM budget and 256 MiB for the process itself"


def test_what_lost_what_to_buy_and_what_is_trusted() -> None:
    decision = stories.decision("serial", stories.layers(stories.model()), batch=4, ring_slots=0)
    upgrades = [Upgrade(resource=r, factor=2.0, gain=g) for r, g in (("VRAM", 0.5), ("RAM", 0.012), ("disk", 0.009))]
    runners_up = [RunnerUp(plan="merged, 2 x 2", tokens_per_second=12.34, reason="slower rounds")]
    search = msgspec.structs.replace(SEARCH, runners_up=runners_up, upgrades=upgrades)
    *_, lost, buy, trust = answer(decision, search=search, assumptions=tuple(f"fact {n}" for n in range(8)))
    assert lost.splitlines() == [
        "What lost, and why",
        "  plan           tokens/s  why",
        "  merged, 2 x 2  12.3      slower rounds",
    ]
    assert buy == "What to buy next: 2x VRAM gives at least +50%, 2x RAM gives at least +1%"
    assert trust.splitlines() == [
        "Taken on trust",
        *(f"  fact {n}" for n in range(6)),
        "  and 2 more, in the plan file",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0315, "31.5 ms"), (59.0, "59.0 s"), (60.0, "1 min 0 s"), (3599.7, "1 h 0 min"), (7325.0, "2 h 2 min")],
)
def test_times_are_in_the_units_that_a_person_uses(seconds: float, words: str) -> None:
    decision = stories.decision("serial", stories.layers(stories.model()), batch=4, ring_slots=0)
    predicted = msgspec.structs.replace(PREDICTED, makespan_s=seconds)
    line = answer(decision, predicted=predicted)[0].splitlines()[1]
    assert line == f"  50.0 useful tokens/s; the job takes {words}"


def test_an_explanation_word_for_word() -> None:
    changes = (Sensitivity("2x VRAM", 150.0, 0.5), Sensitivity("acceptance -0.1", 90.0, -0.1))
    found = Explanation("All waits for the link.", 100.0, changes, 0.25, 80.0)
    assert explanation_text(found).splitlines() == [
        "All waits for the link.",
        "",
        "change (re-planned)  tokens/s  gain",
        "2x VRAM              150.0     +50.0%",
        "acceptance -0.1      90.0      -10.0%",
        "",
        "without speculation: 80.0 tokens/s",
        "speculation starts to pay at an acceptance of 0.25",
    ]


def test_a_table_without_rows_is_its_headers() -> None:
    assert table(("a", "bc"), []) == ["a  bc"]
