"""A sweep's points are those of its grid; it resumes; its answers do not depend on where or in what order they come."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import specsim
from specsim import api
from specsim.errors import InputError
from specsim.records import Records
from specsim.units import GiB, MiB
from specsim.whatif import journal as journals
from specsim.whatif import sweep as sweeping
from specsim.whatif.answer import Answer
from specsim.whatif.journal import SCHEMA, Journal, key
from specsim.whatif.sweep import Sweep
from tests.specsim import plans

VARY = {"vram": [240 * MiB, 320 * MiB, 480 * MiB], "link": [8e9, 32e9], "draft": ["none", "TINY"]}


def swept(folder: Path, vary: dict[str, Any] = VARY, **more: Any) -> Sweep:
    """The tiny target at the points of `vary`, serially unless told otherwise."""
    target, draft = (
        plans.checkpoint(folder / name, config) for name, config in (("target", plans.TARGET), ("draft", plans.DRAFT))
    )
    vary = {name: v if isinstance(v, str) else [draft if w == "TINY" else w for w in v] for name, v in vary.items()}
    asked = {"gpu": "rtx4090", "vram": 320 * MiB, "prompt_tokens": 16, "output_tokens": 8, "requests": 4}
    options = {"draft": draft} | asked | {"target": target, "jobs": 1, "fix": {"strategy": "serial"}} | more
    if "draft" in vary:
        del options["draft"]
    return specsim.sweep(vary, **options)


def test_a_point_for_every_combination_with_the_last_field_fastest(tmp_path: Path) -> None:
    found = swept(tmp_path)
    assert [point[:2] for point in found.points()][:4] == [(240 * MiB, 8e9)] * 2 + [(240 * MiB, 32e9)] * 2
    frame = found.to_frame()
    assert list(frame.columns[:4]) == ["vram GiB", "link GB/s", "draft", "tokens_per_second"]
    assert len(frame) == 12
    assert (frame["gamma"][frame["draft"] == "none"] == 0).all()
    rates = frame.groupby("vram GiB")["tokens_per_second"].max()
    assert rates.is_monotonic_increasing
    assert (frame["vram_peak_bytes"] <= frame["vram GiB"] * 2**30).all()
    assert (frame[["vram_share", "ram_share", "disk_share"]].sum(axis=1).round(9) == 1).all()


def test_quick_answers_are_near_those_of_a_full_search() -> None:
    """`python -m benchmarks.sweep` compares more of them."""
    vary = {"vram": [16 * GiB, 48 * GiB], "link": [12e9, 40e9]}
    asked = {"gpu": "rtx4090", "target": "mixtral-8x7b", "workload": "humaneval", "jobs": 1}
    quick, full = (specsim.sweep(vary, thorough=thorough, **asked).answers for thorough in (False, True))
    for fast, slow in zip(quick, full, strict=True):
        assert fast.tokens_per_second == pytest.approx(slow.tokens_per_second, rel=0.04)


SMALL = {"gpu": "t4", "vram": 5 * GiB, "target": "qwen2.5-3b", "draft": "ngram", "jobs": 1}
SMALL |= {"requests": 4, "prompt_tokens": 64, "output_tokens": 16}


@pytest.mark.parametrize(("vary", "worst"), [({"acceptance": [0.3, 0.9]}, 0.04), ({"gpu-factor": [0.05]}, 0.14)])
def test_a_full_search_is_never_behind_and_quick_answers_not_far(vary: dict[str, Any], worst: float) -> None:
    """The question's own acceptance, at which other plans win, is no matter where acceptance is varied."""
    quick, full = (specsim.sweep(vary, thorough=thorough, acceptance=1, **SMALL).answers for thorough in (False, True))
    for fast, slow in zip(quick, full, strict=True):
        assert fast.tokens_per_second is not None
        assert slow.tokens_per_second is not None
        assert 1 - worst <= fast.tokens_per_second / slow.tokens_per_second <= 1


def test_where_acceptance_is_varied_the_one_given_is_no_matter(tmp_path: Path) -> None:
    low, high = (swept(tmp_path, {"acceptance": [0.5, 0.8]}, acceptance=given) for given in (0.1, 1.0))
    assert low == high


def test_numbers_that_are_only_varied_start_from_the_first(tmp_path: Path) -> None:
    vary = {"requests": [4, 6]}
    assert swept(tmp_path, vary, requests=None) == swept(tmp_path, vary, requests=4)


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "sweep.jsonl"

    def stop(done: int, of: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, journal=journal, progress=stop)
    with journal.open("ab") as file:
        file.write(b'["half a li')
    asked: list[str] = []
    planned = sweeping._answer
    monkeypatch.setattr(sweeping, "_answer", lambda *point: (asked.append(point[0]), planned(*point))[1])
    whole = swept(tmp_path, journal=journal)
    assert len(asked) == 12 - 5
    assert len(journal.read_bytes().splitlines()) == 1 + 12
    assert swept(tmp_path, journal=journal) == whole
    assert len(asked) == 12 - 5
    assert swept(tmp_path) == whole  # at one go


def test_a_journal_skips_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    with Records(path, SCHEMA, "sweep") as records:
        records.append(b'{"of": "another version"}')
        records.append(b'["a",{"gamma":4}]')
    with Journal(path, Answer) as journal:
        assert journal.answers == {"a": Answer(gamma=4)}
        journal.append("b", Answer(why="none"))
    with Journal(path, Answer) as journal:
        assert journal.answers == {"a": Answer(gamma=4), "b": Answer(why="none")}


def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "one"}\n{"prompt": "two"}')
    with pytest.raises(InputError, match=r"prompts.jsonl: is no journal of a sweep, and is left as it is"):
        swept(tmp_path, journal=path)
    assert path.read_bytes() == b'{"prompt": "one"}\n{"prompt": "two"}'


def test_a_journal_that_another_sweep_has_is_refused_until_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    with Journal(path, Answer) as journal:
        journal.append("a", Answer(gamma=4))
        with pytest.raises(InputError, match=r"some.jsonl: another sweep is writing it"), Journal(path, Answer):
            pass
    with Journal(path, Answer) as journal:
        assert journal.answers == {"a": Answer(gamma=4)}


def test_keys_are_those_of_the_content_and_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    known = key(plans.case())
    assert known == key(plans.case())
    assert len({known, key(plans.case(vram=321 * MiB)), key(plans.case(), 1)}) == 3
    monkeypatch.setattr(journals, "code", lambda: "another model")
    assert key(plans.case()) != known


def test_points_without_a_plan_say_why(tmp_path: Path) -> None:
    full, none = swept(tmp_path, {"vram": [320 * MiB, 1 * MiB]}).answers
    assert full.why is None
    assert none.tokens_per_second is None
    assert "vram is short by" in (none.why or "")


def test_combinations_that_make_no_sense_say_so_and_the_others_are_planned(tmp_path: Path) -> None:
    found = swept(tmp_path, {"draft": ["none", "TINY"], "gamma": [0, 3]})
    assert ["needs a draft" in (answer.why or "") for answer in found.answers] == [False, True, False, False]
    with pytest.raises(InputError, match="needs a draft"):
        swept(tmp_path, {"gamma": [3, 4]}, draft="none")


def test_more_points_than_can_be_planned_are_refused_with_their_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1002001 points are too many; at most 1000000"):
        swept(tmp_path, {"link": "1..2GB/s:1001", "disk-bandwidth": "1..2GB/s:1001"})


def test_what_would_change_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="acceptance is given without a draft"):
        swept(tmp_path, {"acceptance": [0.3, 0.9]}, draft="none")
    with pytest.raises(InputError, match="there is no GPU to make faster"):
        swept(tmp_path, {"gpu-factor": [1.0, 2.0]}, gpu="none", vram=None, host="desktop-ddr5-64g")


def test_processors_can_be_made_faster(tmp_path: Path) -> None:
    slow, fast = swept(tmp_path, {"dram-factor": [1.0, 4.0]}, thorough=True).answers
    assert (fast.tokens_per_second or 0) >= (slow.tokens_per_second or 0)
    assert fast != slow


def test_processes_give_the_answers_of_one(tmp_path: Path) -> None:
    assert swept(tmp_path, jobs=2) == swept(tmp_path)


def test_a_cluster_that_loses_a_worker_gives_the_answers_of_one_process(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs distributed: pip install 'specsim-offload[cluster]'")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        first = min(client.run(os.getpid).values())
        killed: list[int] = []

        def kill(done: int, of: int) -> None:
            if done >= of // 3 and not killed:
                killed.append(first)
                os.kill(first, signal.SIGKILL)

        found = swept(tmp_path, cluster=cluster.scheduler_address, progress=kill)
        assert killed == [first]
        assert first not in client.run(os.getpid).values()
    assert found == swept(tmp_path)


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="needs distributed: pip install 'specsim-offload[cluster]'")
    with pytest.raises(InputError, match=r"--cluster 127.0.0.1:x: no Dask scheduler answers"):
        swept(tmp_path, cluster="127.0.0.1:x")


def test_the_library_and_a_question_agree(tmp_path: Path) -> None:
    """What a thorough point finds is what `plan` finds for its question."""
    (answer,) = swept(tmp_path, {"vram": [320 * MiB]}, thorough=True).answers
    target, draft = str(tmp_path / "target"), str(tmp_path / "draft")
    plan = api.plan(
        gpu="rtx4090",
        vram=320 * MiB,
        target=target,
        draft=draft,
        prompt_tokens=16,
        output_tokens=8,
        requests=4,
        fix={"strategy": "serial"},
    )
    policy = plan.decision.policy
    assert (answer.gamma, answer.batch) == (policy.gamma, policy.batch)
    assert answer.tokens_per_second == pytest.approx(plan.predicted.tokens_per_second, rel=0.02)
