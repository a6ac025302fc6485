"""`specsim profile`: a table on stdout, a file for `specsim plan --machine`, one line for whatever is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from specsim import machines
from specsim.cli.profile import profile_text
from tests.specsim.plans import call

torch = pytest.importorskip("torch")
measuring = pytest.importorskip("executor.profile.measure")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that take milliseconds."""
    from tests.executor.profile_stories import DISK, HOST, NO_TIME

    whole = measuring.measure
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        measuring, "measure", lambda path, effort, say: whole(path, effort=NO_TIME, host=HOST, disk=DISK, say=say)
    )


@pytest.mark.usefixtures("tiny")
def test_the_table_says_what_was_measured_and_what_is_trusted_and_the_file_is_a_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "here.yaml"
    status, out, err = call(capsys, "profile", "--quick", "--disk-path", str(tmp_path), "-o", str(file))
    assert (status, err) == (0, "")
    assert "\nmeasured " in out
    assert "\nhost.gemm_efficiency " in out
    assert "\ndisk.bandwidth " in out
    assert "\n\nTaken on trust\n  host.ram_reserve " in out
    assert machines.assemble(machine=str(file)).gpu is None
    assert [path.name for path in tmp_path.iterdir()] == ["here.yaml"]  # the scratch file is gone


@pytest.mark.usefixtures("tiny")
def test_json_is_the_machine_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "profile", "--disk-path", str(tmp_path), "--format", "json")
    assert (status, err) == (0, "")
    assert machines.from_dict(json.loads(out)).host.cores >= 1


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("here.txt", "here.txt: is no name of a profile; end it in .yaml"),
        ("gone/here.yaml", "gone/here.yaml: cannot be written: its folder does not exist"),
    ],
)
def test_a_file_that_could_not_be_used_is_refused_before_measuring(
    output: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "profile", "--quick", "-o", output) == (2, "", f"specsim: error: {line}\n")


def test_without_torch_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("executor.profile")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    line = "specsim: error: measuring needs torch; pip install 'specsim-offload[run]'\n"
    assert call(capsys, "profile", "--quick") == (2, "", line)


def test_a_cost_of_nothing_is_shown_too() -> None:
    source = {"kind": "measured", "n": 3, "spread": "1%"}
    facts = {"overhead_head": ["0 ns", "m"], "bf16": ["1 TFLOP/s", "m"]}
    machine = {"title": "m", "host": {"facts": facts, "sources": {"m": source}}}
    assert "\nhost.overhead_head  0.00 ns " in profile_text(machine, [])
