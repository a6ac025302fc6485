"""The journal of a run, and what is restored from it: whatever byte a crash stopped at, no token is wrong or lost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pytest

from executor.batches import Commit
from executor.identity import differences
from executor.journal import Asked, Journal, read_begun
from executor.metrics import Earlier
from executor.options import RunOptions
from executor.outputs import OUTPUTS, OutputWriter
from executor.requests import Generation, Request
from executor.resume import begun, open_outputs
from specsim.errors import InputError
from specsim.simulator.lengths import Seen

ASKED = Asked({"seed": 3}, {"seed": 3, "plan": {"policy": {"gamma": 4}}})
#: one ends by its length, one by an end token, one is cut off
REQUESTS = [
    Request(0, "a", (5, 6), 4),
    Request(1, "é", (7,), 9, eos=frozenset({2})),
    Request(2, "c", (8,), 9),
]
COMMITS = [
    [Commit(0, (10,), 0, 0), Commit(1, (20,), 0, 0)],
    [Commit(0, (11, 12), 3, 1), Commit(1, (21, 2), 3, 1)],
    [Commit(0, (13,), 3, 0), Commit(2, (30, 31), 0, 0)],
]
LINES = [
    b'{"id": "a", "output_ids": [10, 11, 12, 13], "text": null, "finish_reason": "length", "useful_tokens": 4}\n',
    '{"id": "é", "output_ids": [20, 21, 2], "text": null, "finish_reason": "eos", "useful_tokens": 3}\n'.encode(),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run that was cut off, with the lines of those that have ended, the later one first."""
    with Journal(tmp_path) as journal:
        assert (journal.begun, journal.committed, journal.over) == (None, {}, False)
        journal.begin(ASKED)
        for commits in COMMITS:
            for commit in commits:
                journal.record(commit)
            journal.write()
    (tmp_path / OUTPUTS).write_bytes(LINES[1] + LINES[0])
    return tmp_path


def options(out: Path, *, resume: bool = True) -> RunOptions:
    return RunOptions(Path("target"), Path("prompts"), out, resume=resume)


def resume(out: Path, requests: Sequence[Request] = REQUESTS) -> tuple[dict[str, tuple[int, ...]], Earlier | None]:
    """What was committed of each request that is left, and what there was before."""
    with Journal(out) as journal:
        writer, left, earlier = open_outputs(journal, ASKED, requests, options(out), None)
        writer.close()
    return {request.id: request.committed for request in left}, earlier


def lines(out: Path) -> list[bytes]:
    return (out / OUTPUTS).read_bytes().splitlines(keepends=True)


def test_a_run_goes_on_where_each_request_stood(out: Path) -> None:
    assert resume(out) == ({"c": (30, 31)}, Earlier(requests=2, tokens=9))
    assert lines(out) == [LINES[1], LINES[0]]


def test_what_is_left_goes_on_with_what_its_rounds_have_shown_of_the_draft(out: Path) -> None:
    rounds = [(0, 0), (4, 1), (0, 0), (3, 2)]
    with Journal(out) as journal:
        for number, (proposed, accepted) in enumerate(rounds):
            journal.record(Commit(2, (40 + number,), proposed, accepted))
        journal.write()
    with Journal(out) as journal:
        asked = RunOptions(Path("target"), Path("prompts"), out, resume=True)
        writer, left, _ = open_outputs(journal, ASKED, REQUESTS, asked, None)
        writer.close()
    assert [r.seen for r in left] == [reduce(lambda seen, one: seen.after(*one), [(0, 0), *rounds], Seen())]


def test_whatever_byte_the_outputs_were_cut_at_they_are_made_whole(out: Path) -> None:
    whole = LINES[1] + LINES[0]
    for length in range(len(whole)):
        (out / OUTPUTS).write_bytes(whole[:length])
        assert resume(out) == ({"c": (30, 31)}, Earlier(requests=2, tokens=9))
        assert sorted(lines(out)) == sorted(LINES)


@pytest.mark.parametrize(
    "spoilt",
    [
        LINES[1] + LINES[1] + LINES[0],
        LINES[1] + LINES[0].replace(b"13", b"14"),
        LINES[1] + b'{"id": "b", "output_ids": [1]}\n' + LINES[0],
        LINES[1] + b"[1]\n" + LINES[0],
        LINES[1] + b"\0" * 50,
        LINES[1] + b"[" * 100_000 + b"\n",
        b'{"id": "c", "output_ids": [30, 31], "text": null, "finish_reason": "length", "useful_tokens": 2}\n',
    ],
    ids=["twice", "another token", "nobody's", "no output", "zeros", "nested", "not ended"],
)
def test_outputs_that_the_journal_does_not_know_are_dropped(out: Path, spoilt: bytes) -> None:
    (out / OUTPUTS).write_bytes(spoilt)
    assert resume(out)[0] == {"c": (30, 31)}
    assert sorted(lines(out)) == sorted(LINES)


def test_whatever_byte_the_journal_was_cut_at_each_request_has_whole_commits(out: Path) -> None:
    path = out / "journal.jsonl"
    whole, header = path.read_bytes(), len(path.read_bytes().splitlines(keepends=True)[1])
    own = {r.index: [c.tokens for commits in COMMITS for c in commits if c.request == r.index] for r in REQUESTS}
    begins = {index: {sum(of[:n], ()) for n in range(len(of) + 1)} for index, of in own.items()}
    for length in range(header + 30, len(whole)):
        path.write_bytes(whole[:length])
        (out / OUTPUTS).write_bytes(LINES[1] + LINES[0])
        left, _ = resume(out)
        done = set(lines(out))
        assert done <= set(LINES)
        assert len(done) == len(lines(out))
        assert len(done) + len(left) == len(REQUESTS), "nobody is lost, nobody there twice"
        assert all(left[r.id] in begins[r.index] for r in REQUESTS if r.id in left)


def test_what_an_interrupt_had_written_twice_is_read_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.begin(ASKED)
        journal.record(Commit(0, (10, 11), 0, 0))
        noted = journal._pending[:]
        journal.write()
        journal._pending[:0] = noted
        journal.record(Commit(0, (12,), 0, 0))
        journal.write()
    with Journal(tmp_path) as journal:
        assert {index: list(tokens) for index, tokens in journal.committed.items()} == {0: [10, 11, 12]}
        assert journal.seen == {0: Seen(rounds=2)}


def test_tokens_are_on_the_disk_after_a_second_and_not_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, synced = [100.0], []
    monkeypatch.setattr("executor.journal.time.monotonic", lambda: now[0])
    monkeypatch.setattr("os.fdatasync", lambda file: synced.append(now[0]))
    with Journal(tmp_path) as journal:
        journal.begin(ASKED)
        for token in range(25):
            now[0] += 0.125
            journal.record(Commit(0, (token,), 0, 0))
            journal.write()
        now[0] += 5
        journal.write()
        journal.write()
    assert synced == [100.0, 101.0, 102.0, 103.0, 108.125]


def refused(out: Path, asked: Asked = ASKED, *, resume: bool = True) -> str:
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with Journal(out) as journal, pytest.raises(InputError) as caught:
        open_outputs(journal, asked, REQUESTS, options(out, resume=resume), None)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before, "nothing is changed"
    return str(caught.value)


def test_another_run_is_refused_with_what_differs(out: Path) -> None:
    other = Asked({}, {"seed": 4, "plan": {"policy": {"gamma": 2}}, "torch": "3"})
    assert refused(out, other) == (
        f"{out}: is not the run that was begun here: seed was 3 and is 4; plan policy gamma was 4 and is 2; "
        "torch was null and is 3; go on with what it was begun with, or choose another -o"
    )


def test_a_run_that_was_begun_is_not_begun_again(out: Path) -> None:
    told = f"{out}: has a run that was begun; go on with it: --resume {out}; or choose another -o"
    assert refused(out, resume=False) == told


def test_outputs_without_a_journal_are_nobody_s_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / OUTPUTS).write_bytes(LINES[0])
    with Journal(tmp_path) as journal, pytest.raises(InputError, match="has outputs already"):
        open_outputs(journal, ASKED, REQUESTS, options(tmp_path), None)
    assert lines(tmp_path) == LINES[:1]


@pytest.mark.parametrize("again", [False, True])
def test_a_run_that_came_to_no_token_is_begun_anew(tmp_path: Path, again: bool) -> None:
    with Journal(tmp_path) as journal:
        journal.begin(Asked({}, {"seed": 5}))
    with Journal(tmp_path) as journal:
        writer, left, earlier = open_outputs(journal, ASKED, REQUESTS, options(tmp_path, resume=False), None)
        writer.close()
        assert (left, earlier) == (REQUESTS, None)
    assert read_begun(tmp_path) == ASKED


def test_what_was_begun_is_asked_for_only_where_something_was(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"journal.jsonl: there is none, so there is no run to go on with; give the"):
        begun(tmp_path)
    Journal(tmp_path).close()
    with pytest.raises(InputError, match=r"no run has begun here; give its plan, --target and --prompts too"):
        begun(tmp_path)


def test_a_directory_that_another_run_writes_is_refused(out: Path) -> None:
    with Journal(out), pytest.raises(InputError, match=r"journal.jsonl: another run is writing it; wait for it"):
        begun(out)


@pytest.mark.parametrize(
    "record", [b"{}", b"[1]", b'[[0,0,["a"]]]', b"[[9,0,[-1]]]", b"[[9,5,[1]]]", b"nothing"], ids=lambda r: r.decode()
)
def test_a_journal_that_no_run_wrote_is_one_line(out: Path, record: bytes) -> None:
    with Journal(out) as journal:
        journal._records.append(record)
    with pytest.raises(InputError, match=r"journal.jsonl: is not as a run writes it: .*; run again with another -o"):
        Journal(out)


def test_differences_are_told_by_their_place() -> None:
    found = differences({"a": [1, 2], "b": 1, "d": {"e": 1}}, {"a": [1, 3], "c": None, "d": {"e": 1}})
    assert list(found) == ["a[1] was 2 and is 3", "b was 1 and is null"]


def test_an_output_of_a_request_that_ended_is_written_from_the_journal(out: Path) -> None:
    (out / OUTPUTS).unlink()
    assert resume(out)[1] == Earlier(requests=2, tokens=9)
    assert lines(out) == LINES
    assert Generation(REQUESTS[2]).finish_reason is None
    with OutputWriter(out, known=lambda line: True) as writer:
        assert writer.written == 2
