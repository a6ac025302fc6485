"""Where an error lives: tiny timelines with exact shares, and machines of which one term is wrong."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from specsim.answer import Plan
from specsim.errors import InputError
from specsim.hardware import Machine
from specsim.planfile import dump_yaml
from specsim.profiles import problems, read, to_pair
from specsim.report.validation import comparison_dict, rows
from specsim.timeline import Span, Timeline, busy_seconds
from specsim.validation.interval import Interval
from specsim.validation.occupancy import occupied_seconds
from specsim.validation.pair import pair_profile
from specsim.validation.terms import machine_error, shapley
from specsim.validation.throughput import Comparison, Ran, compare
from specsim.validation.verdict import sentence, terms
from tests.specsim import plans, replays


def story(read: float, compute: float, *, pause: float = 0.0, draft: float = 0.0) -> Timeline:
    """Two reads, each followed by its computation; each read waits for nothing but the disk. Measured ones pause.

    read  |==|==|
    ffn      |=||=|
    """
    first = read + pause
    second = max(2 * read, first + compute) + pause
    spans = [
        Span("verify.0/A/L00/load_ffn.0", "disk", "read", 0.0, read, bytes=8.0),
        Span("verify.0/A/L01/load_ffn.0", "disk", "read", read, 2 * read, bytes=8.0),
        Span("verify.0/A/L00/ffn.0", "cpu", "ffn", first, first + compute),
        Span("verify.0/A/L01/ffn.0", "cpu", "ffn", second, second + compute),
    ]
    preds: list[tuple[int, ...]] = [(), (), (0,), (1,)]
    if draft:
        end = spans[-1].end
        spans.append(Span("draft.1/A/S00/forward", "cpu.draft", "draft", end, end + draft))
        preds.append((3,))
    return Timeline(tuple(spans), tuple(preds))


def test_streams_that_share_a_resource_share_its_time() -> None:
    spans = [
        Span("a", "cpu", "ffn", 0.0, 4.0),
        Span("b", "cpu.draft", "draft", 2.0, 6.0),
        Span("c", "disk", "read", 0.0, 6.0),
        Span("d", "cpu", "ffn", 6.0, 7.0),
        Span("e", "cpu", "head", 7.0, 7.0),
    ]
    timeline = Timeline(tuple(spans))
    assert occupied_seconds(timeline) == [3.0, 3.0, 6.0, 1.0, 0.0]
    assert busy_seconds(timeline) == {"cpu": 7.0, "disk": 6.0}


def test_what_is_hidden_explains_nothing() -> None:
    """Reads of 2 s hide computations of 1 s: only the last one shows."""
    found = machine_error(story(2.0, 1.0), story(2.0, 1.5))
    shares = {(row.resource, row.kind): row.explains_s for row in found.kinds}
    assert (found.predicted_s, found.measured_s) == (5.0, 5.5)
    assert shares == pytest.approx({("cpu", "ffn"): 0.5, ("disk", "read"): 0.0})
    assert found.between_s == pytest.approx(0.0)


def test_shares_add_up_to_the_error_with_the_time_between_tasks() -> None:
    predicted, measured = story(2.0, 1.0, draft=1.0), story(4.0, 3.0, pause=0.25, draft=1.5)
    found = machine_error(predicted, measured)
    assert found.between_s == pytest.approx(0.25)  # the second computation waits for its read, not for the first
    explained = sum(row.explains_s for row in found.kinds) + found.between_s
    assert explained == pytest.approx(found.measured_s - found.predicted_s)
    assert {row.kind: row.ratio for row in found.kinds} == {"read": 2.0, "ffn": 3.0, "draft": 1.5}
    assert found.kinds[0].kind == "read"


def test_tasks_are_matched_by_name_and_others_left_out() -> None:
    extra = Span("verify.1/A/L00/load_ffn.0", "disk", "read", 50.0, 99.0)
    measured = story(2.0, 1.0)
    found = machine_error(story(2.0, 1.0), Timeline((extra, *measured.spans)))
    assert found.measured_s == found.predicted_s
    assert sum(row.tasks for row in found.kinds) == 4
    with pytest.raises(InputError, match="no task is in both"):
        machine_error(story(1.0, 1.0), Timeline((extra,)))


def test_streams_that_take_turns_are_as_long_as_streams_that_share() -> None:
    """Two tasks on one processor, at once at half speed or one after the other: no error."""
    shared = Timeline((Span("a", "cpu", "ffn", 0.0, 4.0), Span("b", "cpu.draft", "draft", 0.0, 4.0)), ((), ()))
    turns = Timeline((Span("a", "cpu", "ffn", 0.0, 2.0), Span("b", "cpu.draft", "draft", 2.0, 4.0)), ((), ()))
    found = machine_error(shared, turns)
    assert [row.explains_s for row in found.kinds] == [0.0, 0.0]
    assert found.between_s == 0.0


def test_the_shapley_value_splits_what_only_two_together_do() -> None:
    a, b, c = ("cpu", "a"), ("cpu", "b"), ("cpu", "c")
    shares = shapley([a, b, c], lambda who: 6.0 * ({a, b} <= who) + 1.0 * (c in who))
    assert shares == pytest.approx({a: 3.0, b: 3.0, c: 1.0})


def wrong(plan: Plan, truth: Machine) -> Comparison:
    """What validation finds where the plan's machine is not the true one, on which all goes as in a simulation."""
    predicted, measured = (replays.job_timeline(plan, machine) for machine in (plan.case.machine, truth))
    tokens = plan.case.workload.requests * plan.case.workload.output_tokens
    return compare(plan, Ran(4, tokens, measured.makespan, (0.7,)), predicted, measured)


@pytest.mark.parametrize(
    ("gpu", "resource", "factor", "what"),
    [(False, "disk", 0.5, "reads"), (False, "disk", 3.0, "reads"), (True, "link", 0.4, "weights coming over the link")],
)
def test_a_wrong_rate_is_named(gpu: bool, resource: str, factor: float, what: str) -> None:
    plan = plans.plan(gpu=gpu)
    found = wrong(plan, plan.case.machine.scaled(**{resource: factor}))
    assert sentence(found).startswith(f"{resource} bandwidth: {what} took ")
    assert found.machine.kinds[0].ratio == pytest.approx(1 / factor, rel=0.15)  # no faster than DRAM, and a latency
    assert terms(found)[0].share == pytest.approx(found.machine_share, rel=0.1)


def test_a_machine_that_is_as_predicted_has_no_error() -> None:
    plan = plans.plan()
    found = wrong(plan, plan.case.machine)
    assert found.machine_share == 0
    assert {term.name for term in terms(found)} <= {"the requests", "acceptance"}


def comparison(**changes: object) -> Comparison:
    machine = machine_error(story(2.0, 1.0), story(2.5, 1.4))
    base = Comparison(100.0, 80.0, 64.0, 50.0, (0.75,), (0.5,), Interval(80.0, 125.0, {}), machine)
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_steps_sum_to_the_error() -> None:
    found = comparison()
    slower = found.machine.measured_s - found.machine.predicted_s
    assert found.error == 1.0
    assert (found.acceptance_share, found.requests_share) == pytest.approx((0.25, 0.3125))
    assert found.machine_share == pytest.approx(2.0 - 1.5625)
    told = sum(term.share for term in terms(found))
    assert told == pytest.approx(found.acceptance_share + found.requests_share + found.share(slower))


def test_wrong_acceptance_is_told_from_a_wrong_machine() -> None:
    """The same run, measured with a worse draft than the plan supposed: the machine is not at fault."""
    plan = plans.plan()
    timeline = replays.job_timeline(plan, plan.case.machine)
    worse = compare(plan, Ran(4, 32, 1.0, (0.2, 0.2, 0.2)), timeline, timeline)
    assert worse.reacted < worse.planned
    assert worse.machine_share == 0
    assert (worse.assumed_per_round, worse.measured_per_round) == pytest.approx((1.533, 0.248))


def test_the_sentence_says_how_much_the_worst_term_explains() -> None:
    machine = machine_error(story(1.0, 2.0), story(1.0, 3.0))
    found = comparison(reacted=100.0, replayed=100.0, measured=100 * 5 / 7, machine=machine)
    assert sentence(found) == (
        "FFN products on the CPU: FFN products took 1.5x what was predicted, which explains all of the 40 % error; "
        "the predicted throughput is 40 % too high."
    )
    assert sentence(comparison(reacted=100.0, replayed=100.0, measured=100.0, machine=machine)).startswith("the pred")
    both = machine_error(story(2.0, 3.0), story(5.0, 1.0))  # 8 s and 11 s; slower reads are worth 5.5, the rest -2.5
    helped = comparison(reacted=100.0, replayed=100.0, measured=100 * 8 / 11, machine=both)
    assert "which alone would make an error of 69 %, and others make up for some of that" in sentence(helped)


def test_rows_end_with_their_sum_and_plain_values_say_the_same() -> None:
    plan, found = plans.plan(), comparison()
    table = list(rows(found))
    assert [row[0] for row in table] == [
        "accepted per round",
        "requests: luck, length",
        "disk read",
        "cpu ffn",
        "between tasks",
        "useful tokens/s",
    ]
    assert table[-1][2:] == ("100", "50", "0.50", "+100.0%")
    values = comparison_dict(plan, found)
    assert values["error"] == 1.0
    assert values["sentence"] == sentence(found)
    assert [row["kind"] for row in values["kinds"]] == ["read", "ffn"]


def test_the_acceptance_of_a_run_is_a_profile_to_plan_with(tmp_path: Path) -> None:
    path = tmp_path / "target--draft--work.yaml"
    ran = Ran(4, 32, 1.0, (0.71234, 0.6), 0.0512)
    path.write_text(dump_yaml(pair_profile(plans.plan(), ran, path.stem, datetime.date(2026, 1, 2))))
    assert problems(path) == []
    found = to_pair(read(path))
    assert (found.target, found.draft, found.text, found.spread) == ("target", "draft", "work", 0.0512)
    assert found.acceptance.hazards == (0.7123, 0.6)
    assert "n=4, spread 0.051 between requests" in found.acceptance.source


def test_without_a_pair_or_without_proposals_there_is_no_profile() -> None:
    plan, today = plans.plan(), datetime.date(2026, 1, 2)
    with pytest.raises(InputError, match="nothing was proposed"):
        pair_profile(plan, Ran(4, 32, 1.0, ()), "x", today)
    with pytest.raises(InputError, match="the plan has no draft"):
        pair_profile(replace(plan, case=plan.case.plain()), Ran(4, 32, 1.0, (0.7,)), "x", today)
