"""`specsim validate`: from a plan and its run to one table, one picture and an exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from executor.options import RunOptions
from specsim.answer import Plan
from specsim.hardware import Machine
from specsim.planfile import read_plan, write_plan
from specsim.timeline import write_trace
from tests.specsim import plans, replays

Capture = pytest.CaptureFixture[str]


def leave_run(plan: Plan, truth: Machine, folder: Path) -> None:
    """What a run of `plan` on a machine that is `truth` leaves behind, were the model right about that one."""
    predicted, measured = (replays.job_timeline(plan, machine) for machine in (plan.case.machine, truth))
    tokens = plan.case.workload.requests * plan.case.workload.output_tokens
    metrics = {"requests": 4, "useful_tokens": tokens, "seconds": measured.makespan, "acceptance": [0.7]}
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics | {"numerics": "exact"}))
    (folder / "outputs.jsonl").write_text("{}\n")
    write_trace(folder / "trace.json", {"predicted": predicted, "measured": measured})


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    write_plan(plans.plan(gpu=False), tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunOptions]:
    """Stands for the executor, on a disk half as fast as planned; what it was asked for."""
    asked: list[RunOptions] = []

    def run(plan: Plan, options: RunOptions) -> None:
        asked.append(options)
        leave_run(plan, plan.case.machine.scaled(disk=0.5), options.out)

    monkeypatch.setitem(sys.modules, "executor.run", SimpleNamespace(run=run))
    return asked


def test_a_planted_bandwidth_is_named_and_fails(tmp_path: Path, plan_file: str, capsys: Capture) -> None:
    plan = read_plan(plan_file)
    leave_run(plan, plan.case.machine.scaled(disk=0.5), tmp_path / "run")
    status, out, err = plans.call(capsys, "validate", plan_file, "--run", str(tmp_path / "run"))
    assert (status, err) == (1, "")
    head, table, verdict, picture = out.split("\n\n")
    assert "gamma 3, 1 x 4" in head
    assert table.splitlines()[-1].startswith("useful tokens/s")
    assert verdict.startswith(
        "disk bandwidth: reads took 1.9x what was predicted, which explains all of the 94 % error"
    )
    assert picture == f"picture in {tmp_path}/run/validation.png\n"
    assert (tmp_path / "run" / "validation.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "run" / "validation.json").read_text())["terms"][0]["name"] == "disk bandwidth"


def test_within_the_tolerance_all_is_well(tmp_path: Path, plan_file: str, capsys: Capture) -> None:
    plan = read_plan(plan_file)
    leave_run(plan, plan.case.machine, tmp_path / "same")
    assert plans.call(capsys, "validate", plan_file, "--run", str(tmp_path / "same"))[0] == 0
    leave_run(plan, plan.case.machine.scaled(disk=0.9), tmp_path / "near")
    near = ["validate", plan_file, "--run", str(tmp_path / "near"), "--format", "json"]
    status, out, _ = plans.call(capsys, *near)
    error = json.loads(out)["error"]
    assert (status, 0.02 < error < 0.2) == (0, True)
    assert plans.call(capsys, *near, "--tolerance", "2%")[0] == 1


def test_the_measured_acceptance_is_written_for_the_next_plan(
    tmp_path: Path, plan_file: str, asked: list[RunOptions], capsys: Capture
) -> None:
    pair = tmp_path / "target--draft--work.yaml"
    run = ["--target", "big", "--draft", "small", "--prompts", "p", "-o", str(tmp_path / "out")]
    plans.call(capsys, "validate", plan_file, *run, "--write-pair", str(pair))
    fixes = [word for name, value in plans.QUICK.items() for word in ("--fix", f"{name}={value}")]
    planned = ["plan", *plans.tiny(tmp_path), "--acceptance", str(pair), *fixes, "--format", "json"]
    draft = json.loads(plans.call(capsys, *planned)[1])["draft"]
    assert (draft["acceptance"], draft["acceptance_kind"]) == ([0.7], "measured")


def test_a_plan_is_run_and_everything_is_kept(
    tmp_path: Path, plan_file: str, asked: list[RunOptions], capsys: Capture
) -> None:
    run = "--target big --draft small --prompts p.jsonl --throttle disk=1GB/s --threads 2 --limit 3 --numerics fast"
    assert plans.call(capsys, "validate", plan_file, *run.split(), "-o", str(tmp_path / "out"))[0] == 1
    kept = {"plan.yaml", "metrics.json", "outputs.jsonl", "trace.json", "validation.json", "validation.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == kept
    assert asked == [
        RunOptions(
            target=Path("big"),
            prompts=Path("p.jsonl"),
            out=tmp_path / "out",
            draft=Path("small"),
            numerics="fast",
            throttle={"disk": 1e9},
            threads=2,
            limit=3,
        )
    ]


def test_a_plan_is_made_from_the_options_of_plan(
    tmp_path: Path, asked: list[RunOptions], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fixes = [word for name, value in plans.QUICK.items() for word in ("--fix", f"{name}={value}")]
    plans.call(capsys, "validate", *plans.tiny(tmp_path), *fixes, "--prompts", "p.jsonl")
    (folder,) = tmp_path.glob("validation-*")  # named by the time, where -o is not given
    assert read_plan(folder / "plan.yaml").decision.policy.gamma == 3
    assert asked[0].target == tmp_path / "target"
    assert asked[0].out == Path(folder.name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "x"], "--run: a run is compared with its plan; give the plan file, too"),
        ([], "validate: --target is missing; give it, or try --demo"),
        (["--target", "big"], "validate: --prompts is missing; give it, or try --demo"),
        (["--demo", "--write-pair", "x.txt"], "x.txt: is no name of a profile; end it in .yaml"),
        (["-o", "full", "--demo"], "full: is not empty; choose another -o"),
        (["-o", "full/file/x", "--demo"], "full/file/x: cannot be made: Not a directory; choose another -o"),
    ],
)
def test_what_cannot_be_validated_is_one_line(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert plans.call(capsys, "validate", *arguments) == (2, "", f"specsim: error: {message}\n")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "cannot be read: No such file or directory"),
        ("metrics.json", '{"seconds": 1}', "is not the metrics of a run: Object missing required field"),
        ("trace.json", '{"traceEvents": []}', "has no timeline called measured"),
    ],
)
def test_a_directory_that_is_no_run_is_one_line(
    tmp_path: Path, plan_file: str, capsys: Capture, name: str, content: str | None, message: str
) -> None:
    plan = read_plan(plan_file)
    leave_run(plan, plan.case.machine, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    if content is not None:
        (tmp_path / "run" / name).write_text(content)
    status, out, err = plans.call(capsys, "validate", plan_file, "--run", str(tmp_path / "run"))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"specsim: error: {tmp_path}/run/{name}: {message}")


@pytest.mark.slow
def test_the_demo_works_on_a_bare_machine(tmp_path: Path, capsys: Capture) -> None:
    status, out, _ = plans.call(capsys, "validate", "--demo", "-o", str(tmp_path / "out"))
    assert status in (0, 1)  # as good as the machine is quiet
    assert "useful tokens/s" in out
    assert (tmp_path / "out" / "validation.png").stat().st_size > 10_000
