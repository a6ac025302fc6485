"""Runs that are cut off and resumed give what they would have given: the same lines, for greedy and sampled tokens."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from executor.checkpoint.checkpoint import open_checkpoint
from executor.metrics import read_metrics
from executor.options import RunOptions
from executor.resume import begun
from executor.run import run
from specsim.acceptance import Acceptance
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.planfile import write_plan
from specsim.simulator.lengths import DraftLengths
from tests.executor import checkpoints, runs
from tests.specsim import plans

REQUESTS, NEW = 7, 12
#: with which little has to be refused until less is drafted
LENGTHS = DraftLengths((1.0, 1.3, 1.6), Acceptance.constant(0.8, "assumed", "tests"), 2.0)
WARM = {"temperature": 1.5, "seed": 11}


class KilledError(BaseException):
    """Stands for the end of the process: from then on nothing can be written."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    checkpoints.make("mixtral", folder / "target", seed=1)
    checkpoints.make("mistral", folder / "draft", seed=2)
    lines = [{"id": f"r{i}", "input_ids": [3 + i, 4, 5 + i], "max_new_tokens": NEW - i % 3} for i in range(REQUESTS)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def planned(folder: Path, *, model: bool = True, **policy: Any) -> Plan:
    target, draft = open_checkpoint(folder / "target"), open_checkpoint(folder / "draft")
    of = {"prompt": 5, "output": NEW, "requests": REQUESTS, "gamma": 2, "batch": 2} | policy
    return runs.plan(target.architecture.model, draft=draft.architecture.model if model else None, **of)


def options(folder: Path, out: Path, plan: Plan, **changes: Any) -> RunOptions:
    draft = folder / "draft" if plan.case.draft is not None else None
    return replace(RunOptions(folder / "target", folder / "prompts.jsonl", out, draft), **changes)


def lines(out: Path) -> list[bytes]:
    return sorted((out / "outputs.jsonl").read_bytes().splitlines(keepends=True))


@contextmanager
def killed(after: int, share: float) -> Iterator[None]:
    """The process dies in its write number `after` to the journal or the outputs, when `share` of it is written."""
    real, left = os.write, after

    def write(file: int, data: Any) -> int:
        nonlocal left
        if not os.readlink(f"/proc/self/fd/{file}").endswith(".jsonl"):
            return real(file, data)
        left -= 1
        if left > 0:
            return real(file, data)
        if left == 0:
            real(file, data[: int(share * len(data))])
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


@pytest.mark.parametrize(
    "asked", [{}, WARM, WARM | {"draft_length": "adaptive"}], ids=["greedy", "sampled", "sampled, adaptive"]
)
@pytest.mark.parametrize(
    "how",
    [{"strategy": "serial", "refill": True}, {"strategy": "interleaved", "model": False}],
    ids=["serial with a model", "interleaved with n-grams"],
)
def test_a_run_that_dies_again_and_again_ends_with_the_same_lines(
    folder: Path, tmp_path: Path, how: dict[str, Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.setup.draft_lengths", lambda case, decision: LENGTHS)
    plan = planned(folder, **how)
    whole = run(plan, options(folder, tmp_path / "whole", plan, **asked))
    rng = random.Random(f"{how}{asked}")
    out, deaths = tmp_path / "out", 0
    while True:
        try:
            with killed(rng.randrange(1, 15), rng.random()):
                result = run(plan, options(folder, out, plan, resume=True, **asked))
            break
        except KilledError:
            deaths += 1
            if (out / "outputs.jsonl").exists():
                assert {line for line in lines(out) if line.endswith(b"\n")} <= set(lines(tmp_path / "whole"))
    assert deaths >= 3
    assert lines(out) == lines(tmp_path / "whole")
    last = result.metrics
    assert last.earlier is not None
    assert last.earlier.tokens + last.useful_tokens == whole.metrics.useful_tokens, "each token counts once"
    assert last.earlier.requests + last.requests == REQUESTS


def test_nothing_but_the_directory_is_needed_and_a_run_that_is_over_stays_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(folder)
    write_plan(plan, tmp_path / "plan.yaml")
    run(plan, options(folder, tmp_path / "whole", plan, **WARM))
    with pytest.raises(KilledError), killed(9, 0.5):
        run(plan, options(folder, tmp_path / "out", plan, **WARM))
    status, out, err = plans.call(capsys, "run", "--resume", str(tmp_path / "out"))
    assert (status, err) == (0, "")
    assert "\nresumed: " in out
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (tmp_path / "out").iterdir()}
    status, again, err = plans.call(capsys, "run", "--resume", str(tmp_path / "out"))
    assert (status, err) == (0, f"specsim: the run in {tmp_path}/out had ended before; nothing was done\n")
    assert again.split("\n\n")[0] == out.split("\n\n")[0]
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in (tmp_path / "out").iterdir()} == before


def test_a_run_that_dies_after_its_last_token_has_its_metrics_when_resumed(folder: Path, tmp_path: Path) -> None:
    plan = planned(folder)
    whole = run(plan, options(folder, tmp_path / "out", plan))
    journal = tmp_path / "out/journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    (tmp_path / "out/metrics.json").rename(tmp_path / "out/.metrics.json.4711")  # killed just before it was in place
    (tmp_path / "out/trace.json").rename(tmp_path / "out/.trace.json.4711")
    result = run(plan, options(folder, tmp_path / "out", plan, resume=True))
    assert result.metrics.earlier is not None
    assert (result.metrics.requests, result.metrics.useful_tokens) == (0, 0)
    assert result.metrics.earlier.tokens == whole.metrics.useful_tokens
    assert json.loads((tmp_path / "out/metrics.json").read_text())["earlier"]["requests"] == REQUESTS
    left = {"journal.jsonl", "outputs.jsonl", "metrics.json", "trace.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == left


def test_a_run_that_dies_before_it_says_that_it_is_over_has_only_that_to_say(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is loaded for that. Once it is said, nothing is asked of the machine either. Metrics of another run do
    not count."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("there is nothing to do")

    plan, out = planned(folder), tmp_path / "out"
    whole = run(plan, options(folder, out, plan))
    told, files = read_metrics(out), ("journal.jsonl", "metrics.json", "trace.json")
    before = {file: (out / file).read_bytes() for file in files}
    (out / "journal.jsonl").write_bytes(b"".join(before["journal.jsonl"].splitlines(keepends=True)[:-1]))
    monkeypatch.setattr("executor.opening.load", never)
    for _ in range(2):
        result = run(plan, options(folder, out, plan, resume=True))
        assert (result.over, result.metrics) == (True, told)
        assert {file: (out / file).read_bytes() for file in files} == before
        monkeypatch.setattr("executor.run.check_disk", never)
    (out / "journal.jsonl").write_bytes(b"".join(before["journal.jsonl"].splitlines(keepends=True)[:-1]))
    replace(whole.metrics, useful_tokens=whole.metrics.useful_tokens - 1).write(out)
    monkeypatch.undo()
    assert run(plan, options(folder, out, plan, resume=True)).metrics.requests == 0


def test_a_request_longer_than_what_may_join_a_pass_joins_it_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.setup.join_tokens", lambda workload, policy: 5.0)
    plan = planned(folder, refill=True)
    run(plan, options(folder, tmp_path / "whole", plan))
    with pytest.raises(KilledError), killed(12, 0.0):
        run(plan, options(folder, tmp_path / "out", plan))
    run(plan, options(folder, tmp_path / "out", plan, resume=True))
    assert lines(tmp_path / "out") == lines(tmp_path / "whole")


@pytest.fixture(scope="module")
def cut(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off."""
    out, plan = tmp_path_factory.mktemp("cut") / "out", planned(folder)
    with pytest.raises(KilledError), killed(9, 0.5):
        run(plan, options(folder, out, plan, **WARM))
    return out


def refused(plan: Plan, asked: RunOptions) -> str:
    before = {file: file.read_bytes() for file in asked.out.iterdir()}
    with pytest.raises(InputError) as caught:
        run(plan, asked)
    assert {file: file.read_bytes() for file in asked.out.iterdir()} == before, "nothing is changed"
    where, _, told = str(caught.value).partition(": is not the run that was begun here: ")
    assert where == str(asked.out)
    return told.removesuffix("; go on with what it was begun with, or choose another -o")


def test_another_plan_prompts_or_options_are_refused_with_what_differs(folder: Path, tmp_path: Path, cut: Path) -> None:
    plan, asked = begun(cut)
    assert plan == planned(folder)
    assert asked == options(folder, cut, plan, resume=True, **WARM)
    assert refused(planned(folder, gamma=3), asked) == "plan policy gamma was 2 and is 3"
    assert refused(plan, replace(asked, draft_length="adaptive")) == "draft_length was fixed and is adaptive"
    assert refused(plan, replace(asked, seed=12, top_k=3)) == "top_k was null and is 3; seed was 11 and is 12"
    threads = torch.get_num_threads()
    try:
        told = refused(plan, replace(asked, threads=threads + 1))
    finally:
        torch.set_num_threads(threads)
    assert told == f"threads was {threads} and is {threads + 1}"
    other = tmp_path / "prompts.jsonl"
    other.write_bytes((folder / "prompts.jsonl").read_bytes().replace(b"[3, 4, 5]", b"[3, 4, 6]"))
    told = refused(plan, replace(asked, prompts=other))
    assert told.startswith("prompts was 7 requests (")
    assert " and is 7 requests (" in told


def test_another_checkpoint_of_the_same_shapes_is_refused(folder: Path, tmp_path: Path, cut: Path) -> None:
    plan, asked = begun(cut)
    told = refused(plan, replace(asked, target=checkpoints.make("mixtral", tmp_path / "other", seed=3)))
    assert told.startswith("target model.safetensors was ")
    (folder / "draft").rename(tmp_path / "moved")
    try:
        with pytest.raises(InputError, match=r"draft: is not a directory"):
            run(plan, asked)
        with pytest.raises(KilledError), killed(1, 0.0):  # it goes on, as it is the same wherever it lies
            run(plan, replace(asked, draft=tmp_path / "moved"))
    finally:
        (tmp_path / "moved").rename(folder / "draft")
