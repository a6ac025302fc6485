"""`specsim run`: the plan and the options reach the executor, and what it found is told. The executor is a stub."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as change

from executor.journal import Asked, Journal
from executor.metrics import Earlier, Metrics, Predicted
from executor.options import RunOptions, RunResult
from executor.outputs import Output, OutputWriter
from specsim.answer import Plan
from specsim.decision import Decision
from specsim.planfile import write_plan
from specsim.timeline import Span, Timeline, write_trace
from tests.specsim import plans

OUTPUTS = (
    Output("1\n", (4, 5), "def main():\n    pass\x1b[2J\n", "eos"),
    Output("2", tuple(range(60)), None, "length"),
    Output("3", (6,), "never shown", "length"),
)


def measured(plan: Plan) -> Metrics:
    return Metrics(
        requests=4,
        useful_tokens=32,
        seconds=2.0,
        prefill_s=0.5,
        decode_s=1.5,
        load_s=0.25,
        rounds=7,
        acceptance=(0.75, 0.5),
        acceptance_spread=0.1,
        accepted_per_round=1.125,
        proposed=84,
        peak_bytes={"vram": 2**28},
        process_bytes=2**27,
        peak_process_bytes=2**29,
        utilisation={"gpu": 0.5, "h2d": 0.9},
        bytes_moved={"h2d": 3 * 2**30, "d2h": 0},
        numerics="exact",
        strategy="serial",
        gamma=3,
        predicted=Predicted.of(plan),
        replayed_s=2.0,
        between_tasks=0.01,
    )


def succeed(plan: Plan, options: RunOptions) -> RunResult:
    with OutputWriter(options.out) as writer:
        for output in OUTPUTS:
            writer.write(output)
    return RunResult(measured(plan), writer.path, OUTPUTS)


class Stub:
    """Stands for `executor.run`, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Plan, RunOptions]] = []
        self.ending: Callable[[Plan, RunOptions], RunResult] = succeed

    def run(self, plan: Plan, options: RunOptions) -> RunResult:
        self.calls.append((plan, options))
        return self.ending(plan, options)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr("executor.ranks.launch.run", stub.run)
    return stub


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    write_plan(plans.plan(), tmp_path / "plan.yaml")
    models = ["--target", "big", "--draft", "small"]
    return ["run", str(tmp_path / "plan.yaml"), *models, "--prompts", "p.jsonl", "-o", str(tmp_path / "out")]


Capture = pytest.CaptureFixture[str]


def test_without_options_the_plan_runs_exactly_and_greedily(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    assert plans.call(capsys, *arguments)[0] == 0
    asked = RunOptions(Path("big"), Path("p.jsonl"), tmp_path / "out", draft=Path("small"))
    assert stub.calls == [(plans.plan(), asked)]


def test_every_option_reaches_the_executor(tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture) -> None:
    given = "--numerics fast --temperature 0.8 --top-k 40 --top-p 0.9 --seed 7 --max-new-tokens 5 --ignore-eos"
    more = "--stop END --throttle disk=500MB/s --throttle link=8GB/s --emulate-gpu --threads 2 --limit 3 --anyway"
    assert plans.call(capsys, *arguments, *given.split(), *more.split(), "--stop", "\n\n")[0] == 0
    assert stub.calls[0][1] == RunOptions(
        target=Path("big"),
        prompts=Path("p.jsonl"),
        out=tmp_path / "out",
        draft=Path("small"),
        numerics="fast",
        temperature=0.8,
        top_k=40,
        top_p=0.9,
        seed=7,
        max_new_tokens=5,
        stop=("END", "\n\n"),
        ignore_eos=True,
        throttle={"disk": 500e6, "link": 8e9},
        emulate_gpu=True,
        threads=2,
        limit=3,
        anyway=True,
    )


def test_measured_stands_beside_predicted_and_the_outputs_follow(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    status, out, err = plans.call(capsys, *arguments)
    assert (status, err) == (0, "")
    table, remarks, rest = out.split("\n\n")
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["measured", "predicted", "ratio"]
    assert [" ".join(row[:-3]) if row[0] == "useful" else row[0] for row in rows[2:]] == [
        "useful tokens/s",
        "prefill",
        "decode",
        "the",
        "accepted",
        "peak",
        "process",
        "peak,",
    ]
    assert remarks.splitlines() == [
        "acceptance by position 0.75 0.50, of 84 proposed tokens",
        "moved h2d 3.00 GiB in 7 rounds; loading took 250 ms",
        "from one task to the next, where all waited for that: 1.0% of the time",
    ]
    assert rest.splitlines() == [
        f"outputs in {tmp_path}/out/outputs.jsonl; beside it metrics.json and, as a trace for Perfetto, trace.json",
        "1 : def main(): pass [2J",
        "2: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34...",
    ]


def test_a_run_of_other_requests_than_the_plan_s_says_so(stub: Stub, arguments: list[str], capsys: Capture) -> None:
    def fewer(plan: Plan, options: RunOptions) -> RunResult:
        result = succeed(plan, options)
        return replace(result, metrics=replace(result.metrics, requests=2, useful_tokens=11))

    stub.ending = fewer
    out = plans.call(capsys, *arguments)[1]
    assert "\npredicted for 4 requests and 32 useful tokens, measured with 2 and 11\n" in out


def test_json_is_the_metrics_and_where_the_outputs_lie(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    status, out, err = plans.call(capsys, *arguments, "--format", "json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found.pop("outputs") == f"{tmp_path}/out/outputs.jsonl"
    assert found == json.loads(json.dumps(measured(plans.plan()).to_dict()))


def test_an_interrupt_keeps_what_is_finished_and_says_how_much(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    def interrupted(plan: Plan, options: RunOptions) -> RunResult:
        succeed(plan, options)
        with Journal(options.out) as journal:
            journal.begin(Asked({}, {}))
        raise KeyboardInterrupt

    stub.ending = interrupted
    out = tmp_path / "out"
    line = f"specsim: interrupted; 3 finished outputs are kept in {out}; go on with: specsim run --resume {out}\n"
    assert plans.call(capsys, *arguments) == (130, "", line)
    assert len((tmp_path / "out" / "outputs.jsonl").read_text().splitlines()) == 3


def test_an_interrupt_before_a_run_has_begun_leaves_nothing_to_go_on_with(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    def interrupted(plan: Plan, options: RunOptions) -> RunResult:
        raise KeyboardInterrupt

    stub.ending = interrupted
    line = f"specsim: interrupted; no run has begun in {tmp_path}/out yet\n"
    assert plans.call(capsys, *arguments) == (130, "", line)
    assert not (tmp_path / "out").exists()


def test_a_run_is_resumed_or_begun_where_it_is_to_be(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    *given, _, out = arguments
    assert plans.call(capsys, *given, "--resume", out)[0] == 0
    asked = RunOptions(Path("big"), Path("p.jsonl"), tmp_path / "out", draft=Path("small"), resume=True)
    assert stub.calls == [(plans.plan(), asked)]


def test_an_ended_run_and_an_earlier_part_are_told(stub: Stub, arguments: list[str], capsys: Capture) -> None:
    def resumed(plan: Plan, options: RunOptions) -> RunResult:
        result = succeed(plan, options)
        return replace(result, metrics=replace(result.metrics, earlier=Earlier(3, 120)), over=True)

    stub.ending = resumed
    _, out, err = plans.call(capsys, *arguments)
    assert "\nresumed: 3 requests had ended and 120 tokens were committed before, which count above nowhere\n" in out
    assert err == f"specsim: the run in {arguments[-1]} had ended before; nothing was done\n"


def test_what_a_run_needs_is_asked_for(tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture) -> None:
    line = "specsim: error: Missing PLAN and --target and --prompts and -o; see specsim run --help\n"
    assert plans.call(capsys, "run") == (2, "", line)
    line = f"specsim: error: -o {tmp_path}/out: --resume here is given too; give one of them\n"
    assert plans.call(capsys, *arguments, "--resume", "here") == (2, "", line)
    line = "specsim: error: none/journal.jsonl: there is none, so there is no run to go on with; give "
    assert plans.call(capsys, "run", "--resume", "none")[2].startswith(line)
    assert stub.calls == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--top-k", "4"], "--top-k: greedy decoding draws nothing; give a --temperature above 0, or leave it out"),
        (["--top-p", "0.5", "--temperature", "0"], "--top-p: greedy decoding draws nothing; give a --temperature "),
        (["--seed", "0"], "--seed: greedy decoding draws nothing; give a --temperature above 0, or leave it out"),
        (["--temperature", "-1"], "Invalid value for '--temperature': -1.0 is not in the range x>=0; see specsim run "),
        (["--throttle", "disk"], "--throttle: 'disk' is not NAME=RATE; for example disk=500MB/s"),
        (["--throttle", "disk=500"], "--throttle disk: '500' has no unit of bytes/s; use one of: B/s, "),
        (["--throttle", "disc=5MB/s"], "run: unknown throttle 'disc'; did you mean disk?"),
        (["--throttle", "disk=1B/s", "--throttle", "disk=2B/s"], "--throttle: disk is throttled twice; give one rate"),
        (["--stop", ""], "run: a stop string is empty; it would stop everywhere; leave it out"),
        (["--max-new-tokens", "0"], "Invalid value for '--max-new-tokens': 0 is not in the range x>=1; see specsim "),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    stub: Stub, arguments: list[str], capsys: Capture, options: list[str], line: str
) -> None:
    status, out, err = plans.call(capsys, *arguments, *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"specsim: error: {line}")
    assert err.count("\n") == 1
    assert stub.calls == []


def refused(plan: Plan, **options: Any) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the message is what is looked at
        RunOptions(Path("big"), Path("p"), Path("out"), **options).setting.check(plan)
    return str(caught.value)


def test_a_plan_with_a_draft_needs_its_weights() -> None:
    hint = "give its checkpoint with --draft DIR"
    assert refused(plans.plan()) == f"run: the plan speculates with draft, and no draft is given; {hint}"


def test_a_draft_that_the_plan_decided_against_is_no_mistake() -> None:
    drafted = plans.plan()
    policy = drafted.decision.policy
    changed = {name: getattr(policy, name) for name in policy.__struct_fields__} | {"gamma": 0, "draft": None}
    decision = Decision(drafted.decision.strategy, type(policy)(**changed), drafted.decision.layers)
    plain = replace(drafted, decision=decision)
    RunOptions(Path("big"), Path("p"), Path("out"), draft=Path("small")).setting.check(plain)
    unknown = replace(plain, case=plain.case.plain())
    hint = "leave out --draft, or plan again with it"
    assert refused(unknown, draft=Path("small")) == f"run: the plan knows no draft, and small is given; {hint}"


def test_without_candidates_there_is_no_draft_length_to_follow_anything() -> None:
    drafted = plans.plan()
    RunOptions(Path("b"), Path("p"), Path("o"), draft=Path("s"), draft_length="adaptive").setting.check(drafted)
    policy = change(drafted.decision.policy, gamma=0, draft=None)
    plain = replace(drafted, decision=change(drafted.decision, policy=policy))
    hint = "leave out --draft-length, or give a plan that speculates"
    told = f"run: the plan drafts nothing whose length could follow anything; {hint}"
    assert refused(plain, draft_length="adaptive") == told


def test_without_a_gpu_there_is_nothing_to_emulate_and_no_link() -> None:
    plan = plans.plan(gpu=False)
    emulated = refused(plan, draft=Path("small"), emulate_gpu=True)
    assert emulated == "run: the plan has no GPU to emulate; leave out --emulate-gpu"
    throttled = refused(plan, draft=Path("small"), throttle={"link": 1e9})
    assert throttled == "run: the plan has no link to throttle; throttle the disk"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "run: limit is 0; give 1 or more"),
        ({"threads": -1}, "run: threads is -1; give 1 or more"),
        ({"throttle": {"disk": 0.0}}, "run: the throttle of disk is 0 bytes/s; give more than 0"),
        ({"throttle": {"disk": float("nan")}}, "run: the throttle of disk is nan bytes/s; give more than 0"),
    ],
)
def test_a_notebook_gets_the_same_refusals(options: dict[str, Any], message: str) -> None:
    assert refused(plans.plan(), **options) == message


@pytest.mark.parametrize("missing", ["torch", "transformers.models", "safetensors.torch"])
def test_what_a_bare_install_lacks_is_one_line_with_the_cure(
    stub: Stub, arguments: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def lacking(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("specsim.runtime.import_module", lacking)
    line = f"running a plan: needs {missing}, which is not installed; pip install 'specsim-offload[run]'"
    assert plans.call(capsys, *arguments) == (2, "", f"specsim: error: {line}\n")


def test_a_module_that_the_executor_itself_lacks_is_a_bug(
    stub: Stub, arguments: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(module: str) -> Any:
        raise ModuleNotFoundError("No module named 'executor.rum'", name="executor.rum")

    monkeypatch.setattr("specsim.runtime.import_module", lacking)
    status, _, err = plans.call(capsys, *arguments)
    assert status == 70
    assert err.startswith("specsim: error: bug in specsim: ModuleNotFoundError: No module named 'executor.rum'")


def test_a_plan_file_that_is_not_there_is_one_line(stub: Stub, arguments: list[str], capsys: Capture) -> None:
    arguments[1] += "x"
    status, out, err = plans.call(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert arguments[1] in err


def test_a_picture_shows_rounds_in_mid_job_predicted_above_measured(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    def rounds(count: int, seconds: float) -> Timeline:
        spans = (Span(f"verify.{n}/A/head/logits", "gpu", "head", n * seconds, (n + 1) * seconds) for n in range(count))
        return Timeline(tuple(spans))

    def ran(count: int) -> Callable[[Plan, RunOptions], RunResult]:
        def end(plan: Plan, options: RunOptions) -> RunResult:
            options.out.mkdir(exist_ok=True)
            timelines = {"predicted": rounds(count, 1.0), "measured": rounds(count, 1.5)}
            write_trace(options.out / "trace.json", timelines)
            return RunResult(measured(plan), options.out / "outputs.jsonl", ())

        return end

    picture = tmp_path / "rounds.svg"
    stub.ending = ran(6)
    assert plans.call(capsys, *arguments, "--plot", str(picture))[0] == 0
    drawn = picture.read_text()
    assert "<!-- predicted: 2.00 s -->" in drawn
    assert "<!-- measured: 3.00 s -->" in drawn
    assert "<!-- Round 2 to 3: " in drawn
    stub.ending = ran(1)
    status, _, err = plans.call(capsys, *arguments, "--plot", str(tmp_path / "none.svg"))
    assert (status, err) == (0, "specsim: nothing to draw: there are no two rounds in a row\n")
    assert not (tmp_path / "none.svg").exists()


def test_a_picture_that_cannot_be_written_is_told_before_the_run(
    tmp_path: Path, stub: Stub, arguments: list[str], capsys: Capture
) -> None:
    for path, why in (("rounds.foo", "is no name of a picture"), ("no/rounds.png", "its folder does not exist")):
        status, out, err = plans.call(capsys, *arguments, "--plot", str(tmp_path / path))
        assert (status, out) == (2, "")
        assert why in err
    assert stub.calls == []
