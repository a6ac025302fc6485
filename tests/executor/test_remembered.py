"""Answers that outlast a run: kept for the same machine and library, asked anew for any other, never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from executor.decoder import products, remembered

QUESTION = "bfloat16 64 by 96 17 rows 2 threads"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for the answers of one test."""
    monkeypatch.setenv("SPECSIM_CACHE", str(tmp_path / "kept"))
    yield tmp_path / "kept"
    start_again()


def start_again() -> None:
    """As in a process of its own."""
    remembered._known.cache_clear()
    remembered._identity.cache_clear()
    products._agreeing.cache_clear()


def never() -> int | None:
    raise AssertionError("asked again")


@pytest.mark.parametrize("answer", [32, None])
def test_an_answer_outlasts_the_process(kept: Path, answer: int | None) -> None:
    assert remembered.remembered(QUESTION, lambda: answer) == answer
    start_again()
    assert remembered.remembered(QUESTION, never) == answer
    assert remembered.remembered(QUESTION.replace("17", "18"), lambda: 48) == 48


def test_the_next_run_makes_no_trial_and_the_same_products(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(17, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).bfloat16()
    first = products.invariant(rows, weight)
    start_again()
    monkeypatch.setattr(products, "_tried", lambda *_: never())
    assert torch.equal(products.invariant(rows, weight), first)


def test_another_library_processor_setting_or_way_to_try_is_asked_for_itself(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for change in (
        lambda: None,
        lambda: monkeypatch.setattr(torch.__config__, "show", lambda: "another build"),
        lambda: monkeypatch.setattr(remembered, "_processor", lambda: ["model name: another"]),
        lambda: monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2"),
        lambda: monkeypatch.setattr(Path, "read_text", lambda *_, **__: "another way"),
    ):
        change()
        start_again()
        names.add(remembered._file())
    assert len(names) == 5


def test_what_changes_by_the_moment_is_not_part_of_a_processor(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    said = "model name: Some CPU\ncpu MHz: {}\nflags: avx512f\n\nmodel name: Some CPU\n"
    (tmp_path / "proc/cpuinfo").write_text(said.format(2596.1))
    before = remembered._processor(tmp_path)
    (tmp_path / "proc/cpuinfo").write_text(said.format(3100.9))
    assert remembered._processor(tmp_path) == before == ["model name: Some CPU", "flags: avx512f"]


def test_half_a_line_and_rubbish_say_nothing(kept: Path) -> None:
    remembered.remembered(QUESTION, lambda: 32)
    (file,) = kept.iterdir()
    file.write_bytes(b"rubbish\n= 3\n" + file.read_bytes()[:-2])  # cut in "32", so that "3" is what is left of it
    start_again()
    assert remembered.remembered(QUESTION, lambda: 48) == 48
    start_again()
    assert remembered.remembered(QUESTION, lambda: 64) == 64  # joined to the half line, and lost with it
    start_again()
    assert remembered.remembered(QUESTION, never) == 64
    file.write_bytes(b"\xff\x00")
    start_again()
    assert remembered.remembered(QUESTION, lambda: 80) == 80


def test_where_nothing_can_be_kept_every_run_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPECSIM_CACHE", str(tmp_path / "file"))
    for answer in (32, 48):
        start_again()
        assert remembered.remembered(QUESTION, lambda answer=answer: answer) == answer
    start_again()
