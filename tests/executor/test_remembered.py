"""Answers that outlast a run: kept for the same machine and library, asked anew for any other, never in the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from executor.decoder import products, remembered

QUESTION = "bfloat16 64 by 96 17 rows 2 threads"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for the answers of one test, of a machine that can be told from others."""
    monkeypatch.setenv("SPECSIM_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(remembered, "_processor", lambda: ["model name: of these tests"])
    start_again()
    yield tmp_path / "kept"
    start_again()


def start_again() -> None:
    """As in a process of its own."""
    remembered._known.cache_clear()
    remembered._identity.cache_clear()
    products._agreeing.cache_clear()


def asked(answer: int | None) -> int | None:
    """What is remembered; `answer` is what asking says. Any multiple of 16 is possible."""
    return remembered.remembered(QUESTION, lambda: answer, lambda kept: kept % 16 == 0)


def never() -> int | None:
    raise AssertionError("asked again")


def made() -> tuple[Tensor, Tensor]:
    rows = torch.randn(17, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    return rows, torch.randn(64, 96, generator=torch.Generator().manual_seed(1)).bfloat16()


@pytest.mark.parametrize("answer", [32, None])
def test_an_answer_outlasts_the_process(kept: Path, answer: int | None) -> None:
    assert asked(answer) == answer
    start_again()
    assert remembered.remembered(QUESTION, never, lambda kept: True) == answer
    assert remembered.remembered(QUESTION.replace("17", "18"), lambda: 48, lambda kept: True) == 48


def test_the_next_run_makes_no_trial_and_the_same_products(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = products.invariant(*made())
    start_again()
    monkeypatch.setattr(products, "_tried", lambda *_: never())
    assert torch.equal(products.invariant(*made()), first)


def test_each_number_of_threads_is_asked_for_itself(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(products, "_tried", lambda *asked: tried.append(asked) or 32)
    for threads in (1, 2, 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        products.invariant(*made())
    assert len(tried) == 2


def test_a_number_that_cannot_be_is_no_answer(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = products.invariant(*made())
    for wrong in (0, 3, 16, 33, 999999):  # too few rows, no height, more than any product has
        (file,) = kept.iterdir()
        question = re.search("(bfloat16 64 by 96 32 .*) = ", file.read_text())
        assert question
        remembered._keep(file, question[1], wrong)
        start_again()
        assert torch.equal(products.invariant(*made()), expected)


def test_another_library_processor_setting_or_way_to_try_is_asked_for_itself(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for change in (
        lambda: None,
        lambda: monkeypatch.setattr(torch.__config__, "show", lambda: "another build"),
        lambda: monkeypatch.setattr(remembered, "_processor", lambda: ["model name: another"]),
        lambda: monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2"),
        lambda: monkeypatch.setattr(remembered, "bits", lambda: b"other kernels"),
        lambda: monkeypatch.setattr(Path, "read_text", lambda *_, **__: "another way"),
    ):
        change()
        start_again()
        names.add(remembered._file())
    with torch.backends.mkldnn.flags(enabled=False):
        names.add(remembered._file())
    assert len(names) == 7


def test_a_processor_is_what_it_says_with_its_caches_but_not_what_changes_by_the_moment(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    said = "model name: Some CPU\ncpu MHz: {}\nflags: avx512f\n\nmodel name: Some CPU\n"
    for megahertz in (2596.1, 3100.9):
        (tmp_path / "proc/cpuinfo").write_text(said.format(megahertz))
        assert remembered._processor(tmp_path) == ["model name: Some CPU", "flags: avx512f"]
    cache = tmp_path / "sys/devices/system/cpu/cpu0/cache/index3"
    cache.mkdir(parents=True)
    (cache / "size").write_text("32768K\n")
    (cache / "shared_cpu_list").write_text("0-7\n")
    assert remembered._processor(tmp_path)[2:] == ["32768K\n", "0-7\n"]
    assert remembered._processor(tmp_path / "none") == []


def test_half_a_line_rubbish_and_a_changed_digit_say_nothing_and_spoil_no_other(kept: Path) -> None:
    asked(32)
    (file,) = kept.iterdir()
    line = file.read_bytes().strip()
    for spoilt in (line[:-1], line.replace(b"= 32", b"= 48"), b"rubbish\n= 3", b"\xff\x00", b"\n" + line[:20]):
        file.write_bytes(spoilt)
        start_again()
        assert asked(64) == 64
        size = file.stat().st_size
        start_again()
        assert asked(80) == 64
        assert file.stat().st_size == size


@pytest.mark.parametrize("folder", ["{file}", "relative", "~nobody-of-that-name/cache"])
def test_where_nothing_can_be_kept_every_run_asks(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPECSIM_CACHE", folder.format(file=tmp_path / "file"))
    for answer in (32, 48):
        start_again()
        assert asked(answer) == answer
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    start_again()


def test_nothing_is_kept_where_no_machine_can_be_told_from_another(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_processor", list)
    start_again()
    assert [asked(32), asked(48)] == [32, 48]
    assert not kept.exists()
