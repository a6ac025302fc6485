"""Short ones of the benchmarks that kill and disturb runs of the demo pair; and that they would see what went wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.demo_runs import Found, stage
from benchmarks.soak import Watch
from tests.conftest import Fresh

LINES = [f'{{"id": "{id}", "output_ids": [1, 2, {id}]}}\n' for id in range(4)]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (LINES[::-1], Found(requests=4)),
        (LINES[:3], Found(lost=1, requests=4)),
        ([*LINES, LINES[2]], Found(duplicated=1, requests=4)),
        ([*LINES[:3], LINES[3].replace("2", "7")], Found(differing_tokens=1, differing_lines=1, requests=4)),
        ([*LINES[:3], LINES[3].replace("2, ", "")], Found(differing_tokens=2, differing_lines=1, requests=4)),
        ([*LINES[:3], LINES[3].replace(" ", "")], Found(differing_lines=1, requests=4)),
        ([*LINES, LINES[3].replace('"3"', '"x"')], Found(differing_tokens=3, differing_lines=1, requests=4)),
    ],
    ids=["another order", "lost", "twice", "a token", "a token less", "bytes", "nobody's"],
)
def test_whatever_is_wrong_with_outputs_is_counted(tmp_path: Path, lines: list[str], found: Found) -> None:
    for name, of in (("reference", LINES), ("out", lines)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "outputs.jsonl").write_text("".join(of))
    compared = Found()
    compared.add(tmp_path / "out", tmp_path / "reference")
    assert compared == found
    assert compared.mismatches == found.lost + found.duplicated + found.differing_tokens + found.differing_lines


def test_how_far_a_killed_run_came_is_told_by_its_files(tmp_path: Path) -> None:
    assert stage(tmp_path) == "before it had begun"
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b"schema\nasked\n")
    assert stage(tmp_path) == "loading or prefill"
    journal.write_bytes(b"schema\nasked\ntokens\n")
    assert stage(tmp_path) == "decoding"
    (tmp_path / "outputs.jsonl").write_bytes(b"line\n" * 6)
    assert stage(tmp_path) == "after its last output"
    journal.write_bytes(b'schema\nasked\ntokens\n00000000 {"over":true}\n')
    assert stage(tmp_path) == "after its end"


def test_growth_is_the_slope_after_the_first_tenth() -> None:
    slopes = Watch([(60.0 * minute, (9 if minute else 5) * 2**20, 8 + minute) for minute in range(11)]).slopes()
    assert slopes["rss_mib_per_minute"] == pytest.approx(0.0)
    assert slopes["files_per_minute"] == pytest.approx(1.0)
    assert (slopes["moments"], slopes["files_first"], slopes["files_last"]) == (10, 9, 18)
    assert Watch().slopes() == {"moments": 0}


def test_runs_that_are_killed_and_resumed_lose_nothing(fresh: Fresh) -> None:
    done = fresh("-m", "benchmarks.kills", "--cycles", "2", "--kinds", "sampled-ngram")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cycles"] >= 2
    assert sum(found["killed"].values()) == found["cycles"]
    assert (found["lost"], found["duplicated"], found["differing_tokens"], found["differing_lines"]) == (0, 0, 0, 0)


def test_a_short_soak_comes_to_no_harm(fresh: Fresh) -> None:
    done = fresh("-m", "benchmarks.soak", "--minutes", "0.05", "--kinds", "greedy-ngram")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["operations"] >= 1
    assert (found["mismatches"], found["unexpected"]) == (0, [])
