"""Every reader of files, with a few hundred changes to good ones: it reads them, or refuses them in one line.

`python -m fuzz` does the same millions of times, towards branches that were not taken yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.mutate import mutated
from fuzz.property import check
from specsim.errors import SpecsimError
from tests.conftest import ROOT, Fresh

TARGETS = sorted(file.stem for file in (ROOT / "fuzz" / "targets").glob("[a-z]*.py"))
WHOLE = st.integers(0, 2**32)


@pytest.mark.parametrize("target", TARGETS)
def test_good_files_are_read(target: str) -> None:
    module = importlib.import_module(f"fuzz.targets.{target}")
    assert sum(reads(module.read, seed) for seed in module.SEEDS) > len(module.SEEDS) / 2


def reads(read: Callable[[bytes], None], content: bytes) -> bool:
    try:
        read(content)
    except SpecsimError:
        return False
    return True


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=300)
@given(WHOLE)
def test_whatever_changes_in_its_structure_is_read_or_refused(target: str, seed: int) -> None:
    module = importlib.import_module(f"fuzz.targets.{target}")
    random = Random(seed)
    content = random.choice(module.SEEDS)
    for _ in range(random.randint(1, 4)):
        content = mutated(content, module.WORDS, random) or content
    check(module.read, content)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=200)
@given(WHOLE, st.binary(max_size=8), st.integers(0, 8))
def test_whatever_bytes_are_replaced_it_is_read_or_refused(target: str, seed: int, new: bytes, old: int) -> None:
    module = importlib.import_module(f"fuzz.targets.{target}")
    random = Random(seed)
    content = random.choice(module.SEEDS)
    place = random.randrange(len(content))
    check(module.read, content[:place] + new + content[place + old :])


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(target: str, content: bytes) -> None:
    check(importlib.import_module(f"fuzz.targets.{target}").read, content)


def test_a_campaign_counts_what_it_did(fresh: Fresh, tmp_path: Path) -> None:
    pytest.importorskip("atheris")
    record = tmp_path / "results.jsonl"
    done = fresh("-m", "fuzz", "header", "--runs", "500", "--keep", str(tmp_path), "--record", str(record))
    assert done.returncode == 0, done.stderr
    assert record.read_text() == done.stdout
    assert '"executions": 500,' in done.stdout
    assert '"found": 0,' in done.stdout


@pytest.mark.parametrize(
    "forbidden",
    [
        "os.open('made', os.O_WRONLY | os.O_CREAT)",
        "open('made', 'w')",
        "os.truncate('there', 0)",
        "os.rmdir('folder')",
        "subprocess.run(['true'])",
    ],
)
def test_a_reader_that_does_more_than_read_is_found(fresh: Fresh, tmp_path: Path, forbidden: str) -> None:
    (tmp_path / "there").write_text("whole")
    (tmp_path / "folder").mkdir()
    code = f"""
import os, subprocess, sys
from fuzz.property import check, guard
os.chdir({str(tmp_path)!r})
sys.addaudithook(guard)
open("there").close()
check(lambda content: open("there").close(), b"")
check(lambda content: {forbidden}, b"")
"""
    done = fresh("-c", code)
    assert "AssertionError: a reader" in done.stderr
    assert (tmp_path / "there").read_text() == "whole"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "there"]
