"""`specsim export`: what is printed, what is written, and what bad input is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specsim.planfile import write_plan
from tests.specsim import plans


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    write_plan(plans.plan(), tmp_path / "plan.yaml")
    return str(tmp_path / "plan.yaml")


def test_without_a_folder_the_files_are_printed_after_what_is_lost(
    plan_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = plans.call(capsys, "export", plan_file, "--for", "llama.cpp")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "target on rtx4090 in desktop-ddr5-128g, 4 x work, with llama.cpp"
    assert "useful tokens/s predicted (strategy llama.cpp" in lines[1]
    order = [lines.index(title) for title in ("Needs", "Lost in translation", "llama.cpp.sh", "#!/bin/sh")]
    assert order == sorted(order)


def test_with_a_folder_the_files_are_there_and_not_printed(
    plan_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    status, out, _ = plans.call(capsys, "export", plan_file, "--for", "accelerate", "-o", str(folder))
    assert status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["accelerate.json", "generate.py"]
    assert "device_map" not in out
    compile((folder / "generate.py").read_text(), "generate.py", "exec")


def test_the_command_says_where_the_files_are(
    plan_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, out, _ = plans.call(capsys, "export", plan_file, "--for", "accelerate", "-o", "my folder")
    assert "  python 'my folder/generate.py' --target TARGET_DIR --prompts PROMPTS_FILE -o outputs.jsonl" in out
    _, out, _ = plans.call(capsys, "export", plan_file, "--for", "vllm", "-o", "there", "--format", "json")
    assert json.loads(out)["command"] == "sh there/vllm.sh TARGET_DIR DRAFT_DIR"


def test_what_is_there_and_differs_is_kept(plan_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "generate.py").write_text("print('mine')\n")
    command = ("export", plan_file, "--for", "accelerate", "-o", str(tmp_path))
    status, out, err = plans.call(capsys, *command)
    hint = "remove it, or choose another folder"
    assert (status, out) == (2, "")
    assert err == f"specsim: error: {tmp_path}/generate.py: is there and differs; {hint}\n"
    assert (tmp_path / "generate.py").read_text() == "print('mine')\n"
    assert not (tmp_path / "accelerate.json").exists()
    (tmp_path / "generate.py").unlink()
    for _ in range(2):  # the same once more is no loss
        assert plans.call(capsys, *command)[0] == 0


def test_json_has_all_of_it(plan_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = plans.call(capsys, "export", plan_file, "--for", "vllm", "--format", "json")
    found = json.loads(out)
    assert status == 0
    assert (found["engine"], list(found["files"])) == ("vllm", ["vllm.sh"])
    assert found["speed"]["tokens_per_second"] > 0
    assert {"what", "plan", "here"} == found["lost"][0].keys()


def test_bad_input_is_one_line(plan_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = plans.call(capsys, "export", plan_file, "--for", "lama")
    assert (status, out) == (2, "")
    assert "'lama' is not one of" in err
    (tmp_path / "file").write_text("")
    status, out, err = plans.call(capsys, "export", plan_file, "--for", "vllm", "-o", str(tmp_path / "file" / "deeper"))
    assert (status, out) == (2, "")
    assert err == f"specsim: error: {tmp_path}/file/deeper: cannot be written: Not a directory\n"
    write_plan(plans.plan(gpu=False), plan_file)
    status, out, err = plans.call(capsys, "export", plan_file, "--for", "vllm")
    assert (status, out) == (2, "")
    assert err.endswith("and the plan has none; choose --for accelerate or --for llama.cpp\n")
