"""What a run tells of its tasks: how much longer they take than their pieces, the kinds apart."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from executor.profile import inrun
from executor.profile.inrun import AT_ONCE, in_run_facts, task_facts
from executor.profile.machine import Facts, to_profile
from executor.profile.measure import measure
from specsim import machines
from specsim.timeline.timeline import Span, Timeline
from tests.executor.profile_stories import DISK, HOST, NO_TIME

#: by kind of task: predicted seconds
SECONDS = {"attention": 0.010, "ffn": 0.020, "head": 0.005, "draft": 0.003}
MORE = {"attention": 0.001, "ffn": 0.0005, "head": 0.0}
NAMES = {
    "attention": "verify.{}/A/L00/attention",
    "ffn": "verify.{}/A/L00/ffn.0",
    "head": "verify.{}/A/head/logits",
    "draft": "draft.{}/A/S00/forward",
}


def timeline(rounds: int, *, measured: bool, odd: float = 0.0) -> Timeline:
    """Rounds of a task of each kind, one after another; measured, the draft has half its speed, and every second
    round's FFN begins late and takes `odd` longer."""
    spans, now = [], 0.0
    for number in range(rounds):
        for kind, seconds in SECONDS.items():
            took = seconds
            if measured:
                took = 2 * seconds if kind == "draft" else seconds + MORE[kind]
                if kind == "ffn" and number % 2:
                    now, took = now + 2 * AT_ONCE, took + odd
            stream = "cpu.draft" if kind == "draft" else "cpu"
            spans.append(Span(NAMES[kind].format(number), stream, kind, now, now + took, 1.0, 0))
            now += took
        spans.append(Span(f"verify.{number}/A/L00/load_ffn.0", "disk", "load", now, now + 9, 0.0, 100))
    return Timeline(tuple(spans), ())


def test_tasks_that_begin_at_once_tell_what_a_run_adds() -> None:
    runs = [(timeline(20, measured=False), timeline(20, measured=True, odd=5.0))] * 2
    facts = task_facts(runs)
    assert {name: fact.value for name, fact in facts.items()} == {
        "in_run_attention": pytest.approx(0.001),
        "in_run_ffn": pytest.approx(0.0005),
        "in_run_head": pytest.approx(0.0, abs=1e-9),
        "draft_efficiency": pytest.approx(0.5),
    }
    assert {name: fact.n for name, fact in facts.items()} == {
        "in_run_attention": 36,
        "in_run_ffn": 18,
        "in_run_head": 36,
        "draft_efficiency": 36,
    }
    assert all(fact.spread < 1e-6 for fact in facts.values())


def test_what_single_runs_say_is_the_spread() -> None:
    predicted, measured = timeline(20, measured=False), timeline(20, measured=True)
    spans = [Span(s.name, s.stream, s.kind, s.start, s.end, s.flops, s.bytes) for s in predicted.spans]
    facts = task_facts([(predicted, measured), (predicted, Timeline(tuple(spans), ()))])
    assert facts["in_run_attention"].value == pytest.approx(0.0005)
    assert facts["in_run_attention"].spread == pytest.approx(0.0005 / 0.0105, rel=0.06)
    assert facts["draft_efficiency"].spread == pytest.approx(1 / 6 + 1 / 6, abs=0.2)


def test_a_small_pair_is_run_and_the_machine_has_what_it_told(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inrun, "SHARE", 9.0)
    monkeypatch.setattr(
        inrun, "SIZES", inrun.SIZES | {"hidden_size": 96, "intermediate_size": 64, "num_local_experts": 2}
    )
    found: Facts = measure(tmp_path_factory.mktemp("disk"), effort=NO_TIME, host=HOST, disk=DISK)
    machine = to_profile(found, datetime.date(2030, 1, 2))
    facts = in_run_facts(machine, runs=1, say=lambda what: None)
    assert set(facts) == {"in_run_attention", "in_run_ffn", "in_run_head", "draft_efficiency"}
    rounds = facts["in_run_head"].n
    assert rounds > inrun.NEW_TOKENS / (inrun.GAMMA + 1) - inrun.WARM_ROUNDS
    told = to_profile(replace(found, host={**found.host, **facts}), datetime.date(2030, 1, 2))
    processor = machines.from_dict(told).host.processor
    assert processor.in_run_s == {kind: facts[f"in_run_{kind}"].value for kind in ("attention", "ffn", "head")}
    assert processor.draft_efficiency == facts["draft_efficiency"].value
    assert machines.from_dict(machines.to_dict(machines.from_dict(told))).host.processor == processor
