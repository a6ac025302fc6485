"""Metrics: acceptance by position counted exactly, and every figure beside the one that the plan predicted."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.metrics import AcceptanceCounter, Metrics, Predicted
from specsim.acceptance import Acceptance, expected_tokens
from tests.specsim import plans


def counted(*rounds: tuple[int, int]) -> AcceptanceCounter:
    counter = AcceptanceCounter()
    for proposed, accepted in rounds:
        counter.add(proposed, accepted)
    return counter


def test_a_position_is_judged_only_where_all_before_it_were_accepted() -> None:
    counter = counted((4, 4), (4, 2), (4, 0), (4, 1))
    # position 0: 3 of 4 rounds; position 1: 2 of those 3; position 2: 1 of those 2; position 3: that one
    assert counter.hazards == (3 / 4, 2 / 3, 1 / 2, 1 / 1)
    assert (counter.rounds, counter.proposed, counter.accepted) == (4, 16, 7)
    assert counter.per_round == 7 / 4
    assert counter.rate == 7 / 10  # ten were judged: 4 + 3 + 2 + 1


def test_positions_that_were_never_reached_are_left_out() -> None:
    assert counted((8, 1), (8, 0)).hazards == (1 / 2, 0.0)


def test_rounds_may_propose_different_numbers() -> None:
    counter = counted((1, 1), (3, 2), (0, 0))
    assert counter.hazards == (1.0, 1.0, 0.0)
    assert counter.per_round == 1.0


def test_before_anything_was_proposed_there_is_no_acceptance() -> None:
    for counter in (counted(), counted((0, 0))):
        assert (counter.hazards, counter.rate, counter.per_round) == ((), None, 0.0)


def test_requests_that_differ_by_chance_only_have_no_spread() -> None:
    rng = random.Random(0)
    counter = AcceptanceCounter()
    for request in range(400):
        rate = 0.5 if request % 2 else 0.9
        for _ in range(8):
            counter.add(1, int(rng.random() < rate), request)
    assert counter.spread == pytest.approx(0.2, abs=0.03)  # of 0.5 and 0.9, without what eight tosses add
    same = AcceptanceCounter()
    for request in range(400):
        for _ in range(8):
            same.add(1, int(rng.random() < 0.7), request)
    assert same.spread is not None
    assert same.spread < 0.05
    assert counted((4, 4)).spread is None


@pytest.mark.parametrize(("proposed", "accepted"), [(2, 3), (2, -1), (-1, -1)])
def test_counts_that_cannot_be_are_refused(proposed: int, accepted: int) -> None:
    with pytest.raises(ValueError, match=f"{accepted} of {proposed} proposed"):
        AcceptanceCounter().add(proposed, accepted)


@given(st.lists(st.integers(0, 5), min_size=1))
def test_at_a_fixed_length_the_hazards_give_back_the_mean_that_was_accepted(accepted: list[int]) -> None:
    counter = counted(*[(5, count) for count in accepted])
    measured = Acceptance((*counter.hazards, 0.0), "measured", "tests")  # nothing passes what was never reached
    gamma = len(counter.hazards)
    assert expected_tokens(measured, gamma) - 1 == pytest.approx(counter.per_round)


PREDICTED = Predicted(
    requests=4,
    useful_tokens=32,
    tokens_per_second=10.0,
    seconds=3.2,
    prefill_s=1.0,
    decode_s=2.2,
    acceptance=(0.7, 0.7),
    accepted_per_round=1.19,
    peak_bytes={"vram": 2**30, "ram": 2**31},
    process_bytes=2**28,
    peak_process_bytes=2**31 + 2**28,
)
METRICS = Metrics(
    requests=4,
    useful_tokens=30,
    seconds=2.5,
    prefill_s=0.5,
    decode_s=2.0,
    load_s=3.0,
    rounds=6,
    acceptance=(0.75, 0.5),
    acceptance_spread=0.1,
    accepted_per_round=1.25,
    proposed=40,
    peak_bytes={"vram": 2**29, "pinned": 2**20, "disk": 0},
    process_bytes=2**27,
    peak_process_bytes=2**31,
    utilisation={"gpu": 0.5},
    bytes_moved={"h2d": 2**32},
    numerics="exact",
    strategy="serial",
    gamma=2,
    predicted=PREDICTED,
    replayed_s=2.0,
    between_tasks=0.02,
)


def test_a_prediction_is_read_off_the_plan() -> None:
    plan = plans.plan()
    predicted = Predicted.of(plan)
    assert (predicted.requests, predicted.useful_tokens) == (4, 32)
    assert predicted.tokens_per_second == plan.predicted.tokens_per_second
    assert predicted.seconds == plan.predicted.makespan_s
    assert predicted.acceptance == (0.7, 0.7, 0.7)
    assert predicted.accepted_per_round == pytest.approx(0.7 + 0.49 + 0.343)
    phases = plan.predicted.peak_bytes
    assert predicted.peak_bytes["vram"] == max(phase["vram"] for phase in phases.values())


def test_a_plan_that_does_not_speculate_predicts_no_acceptance() -> None:
    plan = plans.plan()
    policy = plan.decision.policy
    policy = type(policy)(**{name: getattr(policy, name) for name in policy.__struct_fields__} | {"gamma": 0})
    decision = type(plan.decision)(plan.decision.strategy, policy, plan.decision.layers)
    predicted = Predicted.of(replace(plan, decision=decision))
    assert (predicted.acceptance, predicted.accepted_per_round) == (None, None)


def test_the_file_has_measured_and_predicted_side_by_side(tmp_path: Path) -> None:
    assert METRICS.write(tmp_path) == tmp_path / "metrics.json"
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found == METRICS.to_dict() | {"acceptance": [0.75, 0.5], "shrunk": [], "predicted": found["predicted"]}
    assert found["tokens_per_second"] == 12.0
    assert found["predicted"]["tokens_per_second"] == 10.0
    assert found["predicted"]["acceptance"] == [0.7, 0.7]
    assert {"useful_tokens", "seconds", "load_s", "rounds", "peak_bytes", "utilisation", "bytes_moved"} <= found.keys()


def test_a_person_sees_the_ratio_of_measured_to_predicted() -> None:
    assert METRICS.comparison() == [
        ("useful tokens/s", "12", "10", "1.20"),
        ("prefill", "500 ms", "1.00 s", "0.50"),
        ("decode", "2.00 s", "2.20 s", "0.91"),
        ("the rounds as they were", "2.50 s", "2.00 s", "1.25"),
        ("accepted per round", "1.25", "1.19", "1.05"),
        ("peak vram", "512 MiB", "1.00 GiB", "0.50"),
        ("peak pinned", "1.00 MiB", "-", "-"),
        ("process itself", "128 MiB", "256 MiB", "0.50"),
        ("peak, all in all", "2.00 GiB", "2.25 GiB", "0.89"),
    ]


def test_the_peak_of_all_is_of_what_lies_in_ram_at_once_and_the_process() -> None:
    plan = plans.plan()
    host = replace(plan.case.machine.host, process_bytes=1000.0)
    plan = replace(plan, case=replace(plan.case, machine=replace(plan.case.machine, host=host)))
    phases = plan.predicted.peak_bytes.values()
    assert Predicted.of(plan).peak_process_bytes == 1000 + max(phase["ram"] for phase in phases)
    emulated = Predicted.of(plan, ("ram", "vram"))
    assert emulated.peak_process_bytes == 1000 + max(phase["ram"] + phase["vram"] for phase in phases)


def test_where_the_kernel_does_not_say_nothing_is_said() -> None:
    silent = replace(METRICS, process_bytes=None, peak_process_bytes=None)
    assert silent.comparison()[-1][0] == "peak pinned"


def test_plain_decoding_has_no_line_about_acceptance() -> None:
    plain = replace(METRICS, gamma=0, acceptance=(), accepted_per_round=0.0)
    assert [row[0] for row in plain.comparison()[2:5]] == ["decode", "the rounds as they were", "peak vram"]


def test_a_prediction_of_nothing_has_no_ratio() -> None:
    nothing = replace(METRICS, predicted=replace(PREDICTED, prefill_s=0.0))
    assert nothing.comparison()[1] == ("prefill", "500 ms", "0.00 ns", "-")


def test_a_run_without_a_moment_has_no_rate() -> None:
    assert replace(METRICS, seconds=0.0).tokens_per_second == 0.0
