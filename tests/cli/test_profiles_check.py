"""`specsim profiles check`: all that is wrong with a stranger's file, a line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from specsim import profiles
from tests.specsim import plans
from tests.specsim.plans import call

GOOD = """\
schema: specsim.link/1
name: mine
title: A link
sources: {sheet: {kind: datasheet, document: a sheet}}
facts: {bandwidth: [4 GB/s, sheet], pageable_efficiency: [0.3, sheet]}
"""
BAD = """\
schema: specsim.link/1
name: mine
titel: A link
sources: {sheet: {kind: datasheet}}
facts: {bandwidth: [4 GW, sheet], pageable_efficiency: [1.5, sheet], latency: [1 us, []]}
"""


def test_good_files_are_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD, encoding="utf-8")
    plans.checkpoint(tmp_path, plans.TARGET)
    files = [str(tmp_path / name) for name in ("mine.yaml", "config.json")]
    assert call(capsys, "profiles", "check", *files) == (0, f"{files[0]}: ok\n{files[1]}: ok\n", "")


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(BAD, encoding="utf-8")
    status, out, err = call(capsys, "profiles", "check", str(file))
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f"{file}: unknown key 'titel'; did you mean title?",
        f"{file}: title is missing; add title:",
        f"{file}: sources.sheet: datasheet source does not say its document",
        f"{file}: facts.bandwidth: '4 GW' has unit 'GW', which is not one of bytes/s; use one of: "
        "B/s, kB/s, MB/s, GB/s, TB/s, PB/s, KiB/s, MiB/s, GiB/s, TiB/s",
        f"{file}: facts.pageable_efficiency: 1.5 is more than 1; a share lies between 0 and 1",
        f"{file}: facts.latency: unknown source '[]'; did you mean sheet?"
        if "did you mean sheet" in err
        else f"{file}: facts.latency: unknown source '[]'; known: sheet",
        "specsim: error: profiles check: 1 of 1 files have problems",
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.yaml", "schema: []\n", "schema is []; write specsim.gpu/1 or "),
        ("p.yaml", "", "is not a mapping of keys to values"),
        ("p.yaml", "a: [", "line 2: "),
        ("p.json", '{"model_type": "gpt2"}', "model_type 'gpt2' is not supported; supported: llama"),
        ("p.json", '{"mlp_only_layers": 5}', "model_type None is not supported; supported: llama"),
        ("p.json", "{", "is not JSON: "),
    ],
)
def test_a_file_of_no_kind_is_told(
    name: str, text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    status, out, err = call(capsys, "profiles", "check", str(tmp_path / name))
    assert (status, out) == (2, "")
    first, last = err.splitlines()
    assert first.startswith(f"{tmp_path / name}: {says}")
    assert last == "specsim: error: profiles check: 1 of 1 files have problems"


def test_the_good_are_told_from_the_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD, encoding="utf-8")
    gone = tmp_path / "gone.yaml"
    status, out, err = call(capsys, "profiles", "check", str(gone), str(tmp_path / "mine.yaml"))
    assert (status, out) == (2, f"{tmp_path / 'mine.yaml'}: ok\n")
    assert err.splitlines() == [
        f"{gone}: cannot be read: No such file or directory",
        "specsim: error: profiles check: 1 of 2 files have problems",
    ]


def test_every_shipped_profile_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(profiles.find(kind, name)) for kind in profiles.KINDS for name in profiles.names(kind)]
    status, out, err = call(capsys, "profiles", "check", *files)
    assert (status, err) == (0, "")
    assert out == "".join(f"{file}: ok\n" for file in files)
