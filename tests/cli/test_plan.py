"""`specsim plan`: the answer on stdout, the plan file, and one line on stderr for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specsim.planfile import read_plan, to_dict
from tests.specsim import plans
from tests.specsim.plans import call

QUICK = ["--strategy", "serial", "--fix", "gamma=3", "--fix", "batch=4"]
BASE = ["plan", "--gpu", "rtx4090", "--target", "mixtral-8x7b"]
ASKED = [*BASE, "--workload", "humaneval"]
DRAFTED = [*ASKED, "--draft", "mistral-7b"]


def test_the_answer_says_what_why_what_to_buy_and_what_is_taken_on_trust(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "plan", *plans.tiny(tmp_path), *QUICK)
    assert (status, err) == (0, "")
    sections = [section.splitlines()[0] for section in out.split("\n\n")]
    assert sections[0].startswith("target with draft on rtx4090 in desktop-ddr5-128g, 4 x ")
    assert sections[1:3] == ["What runs where", "Peak memory"]
    assert sections[-2].startswith("What to buy next: 2x ")
    assert sections[-1] == "Taken on trust"
    assert " useful tokens/s; the job takes " in out
    assert "  speculate with gamma 3, serial, 1 x 4 sequences in flight\n  why: " in out
    assert "  acceptance 0.7 (no profile of draft drafting for target; give --acceptance, or measure it)\n" in out


def test_a_draft_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*plans.tiny(tmp_path), "--strategy", "serial", "--fix", "gamma=3", "--fix", "batch=4"]
    arguments[arguments.index("--draft") + 1] = "ngram"
    status, out, _ = call(capsys, "plan", *arguments, "--acceptance", "0.5")
    assert status == 0
    assert out.startswith("target with n-gram drafting on rtx4090 in desktop-ddr5-128g, 4 x given\n")
    assert "  speculate with gamma 3, serial, 1 x 4 sequences in flight\n" in out


def test_json_on_stdout_is_the_plan_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    status, out, err = call(capsys, "plan", *plans.tiny(tmp_path), *QUICK, "--format", "json", "-o", str(file))
    assert (status, err) == (0, "")
    assert out == file.read_text(encoding="utf-8")
    assert json.loads(out) == to_dict(read_plan(file))


def test_a_plan_file_that_is_not_json_is_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.yaml"
    assert call(capsys, "plan", *plans.tiny(tmp_path), *QUICK, "-o", str(file))[0] == 0
    assert file.read_text(encoding="utf-8").startswith("schema: specsim.plan/1\nmachine:\n")
    assert read_plan(file).decision.policy.gamma == 3


def test_no_feasible_plan_is_an_answer_with_a_status_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = plans.tiny(tmp_path)
    arguments[arguments.index("--vram") + 1] = "8MiB"
    status, out, err = call(capsys, "plan", *arguments, "-o", str(tmp_path / "plan.yaml"))
    assert (status, out) == (1, "")
    assert err.startswith("specsim: error: no plan fits: vram is short by ")
    assert err.count("\n") == 1
    assert not (tmp_path / "plan.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "--gpu", "rtx409", *ASKED[3:]], "unknown gpu 'rtx409'; did you mean rtx4090 or rtx5090 or rtx4080?"),
        ([*BASE[:3], "--host", "desktop"], "Missing option '--target'; see specsim plan --help"),
        (
            [*BASE[:4], "mixtral-8x7", "--workload", "humaneval"],
            "unknown model 'mixtral-8x7'; did you mean mixtral-8x7b or mixtral-8x22b or mistral-7b?",
        ),
        (
            [*ASKED, "--draft", "mistral-7"],
            "unknown model 'mistral-7'; did you mean mistral-7b or mixtral-8x7b or mixtral-8x22b?",
        ),
        (
            [*BASE, "--workload", "humanevl"],
            "unknown workload 'humanevl'; did you mean humaneval or summeval or ceval?",
        ),
        ([*ASKED, "--strategy", "serail"], "--fix strategy: unknown strategy 'serail'; did you mean serial?"),
        ([*ASKED, "--vram", "-3GiB"], "--vram: '-3GiB' must be more than zero"),
        ([*ASKED, "--ram", "0GiB"], "--ram: '0GiB' must be more than zero"),
        ([*ASKED, "--vram", "24W"], "--vram: '24W' has unit 'W', which is not one of bytes; use one of: B, kB, "),
        ([*ASKED, "--link", "4GiB"], "--link: '4GiB' has unit 'GiB', which is not one of bytes/s; use one of: "),
        ([*ASKED, "--disk-bandwidth", "3"], "--disk-bandwidth: '3' has no unit of bytes/s; use one of: B/s"),
        ([*ASKED, "--requests", "0"], "Invalid value for '--requests': 0 is not in the range x>=1; see specsim plan"),
        ([*ASKED, "--requests", "-4"], "Invalid value for '--requests': -4 is not in the range x>=1; see specsim"),
        ([*ASKED, "--dtype", "int4"], "--dtype: dtype 'int4' is not supported; use one of: bfloat16, float16, float32"),
        (
            [*ASKED, "--draft", "qwen3-0.6b"],
            "draft: draft 'qwen3-0.6b' has a vocabulary of 151936 tokens, target 'mixtral-8x7b' of 32000; a draft must "
            "share the target's tokenizer; choose another or --draft none",
        ),
        ([*ASKED, "--acceptance", "0.5"], "--acceptance: acceptance is given without a draft; name a --draft"),
        ([*DRAFTED, "--acceptance", "1.5"], "--acceptance: acceptance is 1.5; give 0 to 1, or a pair profile"),
        ([*DRAFTED, "--acceptance", "nan"], "--acceptance: acceptance is nan; give 0 to 1, or a pair profile"),
        ([*DRAFTED, "--acceptance", "abc"], "--acceptance: 'abc' is neither a rate nor a pair; give 0 to 1, or a pair"),
        ([*ASKED, "--machine", "env1"], "a machine and a GPU or host are given; give --machine alone, or --gpu and"),
        (
            [*ASKED, "--strategy", "serial", "--fix", "strategy=merged"],
            "--strategy: strategy is 'serial' and 'merged'; ",
        ),
        ([*ASKED, "--fix", "nonsense"], "--fix: 'nonsense' is not NAME=VALUE; for example --fix gamma=6"),
        ([*ASKED, "--fix", "gamma="], "--fix: 'gamma=' is not NAME=VALUE; for example --fix gamma=6"),
        ([*ASKED, "--fix", "nonsense=3"], "--fix: 'nonsense' cannot be fixed; use one of: strategy, gamma, batch"),
        ([*ASKED, "--fix", "gamma=many"], "--fix: gamma is 'many'; give a whole number"),
        ([*ASKED, "--fix", "refill=maybe"], "--fix: refill is 'maybe'; give true or false"),
        ([*ASKED, "--fix", "gamma=2", "--fix", "gamma=3"], "--fix: gamma is fixed twice"),
        ([*ASKED, "--fix", "gamma=3"], "--fix gamma: gamma 3 needs a draft; name a --draft"),
        ([*ASKED, "--fix", "batch=0"], "--fix batch: batch is 0; give a whole number from 1"),
        (
            [*BASE, "--prompt-tokens", "40000", "--output-tokens", "8", "--requests", "2"],
            "workload: the longest request needs 40008 positions, 'mixtral-8x7b' has 32768; shorten the prompts or",
        ),
        (
            [*BASE, "--prompt-tokens", "400"],
            "workload: the workload lacks --output-tokens, --requests; give --workload NAME, or all of --prompt-tok",
        ),
        (
            ["plan", *ASKED[3:]],
            "no machine is given; give --gpu NAME, --host NAME or --machine NAME (see specsim list)",
        ),
        (
            ["plan", "--host", "desktop-ddr5-64g", *ASKED[3:], "--vram", "4GiB"],
            "desktop-ddr5-64g: a VRAM budget is given for a machine without a GPU; leave it out, or name a GPU",
        ),
        (
            ["plan", "--gpu", "none", "--host", "desktop-ddr5-64g", *ASKED[3:], "--link", "4GB/s"],
            "desktop-ddr5-64g: a link rate is given for a machine without a GPU; leave it out, or name a GPU",
        ),
        ([*BASE[:4], "nowhere.json", "--workload", "humaneval"], "nowhere.json: no such file; names need no ending: "),
        ([*ASKED, "-o", "nowhere/plan.yaml"], "nowhere/plan.yaml: cannot be written: its folder does not exist"),
        ([*ASKED, "-o", "."], "Invalid value for '-o' / '--output': File '.' is a directory; see specsim plan --help"),
    ],
)
def test_bad_input_is_one_line_on_stderr(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"specsim: error: {line}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"model_type": "gpt2"}', "model_type 'gpt2' is not supported; supported: llama, mistral, mixtral, qwen2"),
        ('{"model_type": ["llama"]}', "model_type ['llama'] is not supported; supported: llama"),
        ('{"model_type": "llama"}', "has no num_attention_heads; it must be a whole number above zero"),
        ('{"model_type"', "is not JSON: "),
        ("[1, 2]", "is not a JSON object; give a Hugging Face config.json"),
        ("\udcff", "is not JSON: "),
    ],
)
def test_a_config_that_cannot_be_read_is_told(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_bytes(text.encode("utf-8", "surrogateescape"))
    for target in (tmp_path, config):
        arguments = ["plan", "--gpu", "rtx4090", "--target", str(target), "--workload", "humaneval"]
        status, out, err = call(capsys, *arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"specsim: error: {config}: {says}")
        assert err.count("\n") == 1


def test_a_checkpoint_without_a_config_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--gpu", "rtx4090", "--target", str(tmp_path), "--workload", "humaneval"]
    says = f"specsim: error: {tmp_path / 'config.json'}: cannot be read: No such file or directory\n"
    assert call(capsys, *arguments) == (2, "", says)
