"""`specsim chat` from a pipe, and the page about it: its commands run."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from click.testing import CliRunner, Result

from specsim.cli import chat
from specsim.cli.main import main
from specsim.errors import SpecsimError, Terminated
from tests.conftest import ROOT

pytest.importorskip("torch", reason="torch is not installed")

PAGE = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
PLAN, CHAT = (line for line in BLOCKS[0].replace("\\\n", " ").splitlines() if line.startswith("specsim"))
(SERVE,) = (line for line in BLOCKS[1].splitlines() if line.startswith("specsim"))


def run(command: str, stdin: str | bytes = "") -> Result:
    words = shlex.split(command.partition(" < ")[0].replace("executor/demo", str(ROOT / "executor" / "demo")))
    return CliRunner().invoke(main, words[1:], input=stdin)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(PLAN).exit_code == 0
    return folder


def test_a_line_is_a_turn_and_nothing_else_is_printed(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(planned)
    done = run(CHAT, "import os\n\ndef main(\n/stats\n/reset\nimport os\n/quit\nnever said\n")
    assert done.exit_code == 0, done.output
    first, _, rest = done.stdout.partition("\nturn ")
    table, _, again = rest.partition("length\n   2 ")[2].partition("\n")
    assert "has no chat template" in done.stderr
    assert first.startswith(again.rstrip("\n")), "the same answer to the same first turn"
    prompt, cached, read = map(int, table.split()[:3])
    assert prompt == cached + read
    assert 0 < read < cached
    assert "never said" not in done.output


@pytest.mark.parametrize(
    ("more", "stdin", "told"),
    [
        ("", "/frobnicate\n", "chat: there is no command /frobnicate; /help names them"),
        ("", "x = 1\n" + "a long line " * 300 + "\n", "tokens, at most 400 are planned for"),
        ("--top-p 0.5", "", "--top-p: greedy decoding draws nothing"),
        ("--stop ''", "", "--stop: a stop string is empty"),
        ("--stop \udcff", "", r"--stop: b'\xff' is not UTF-8; send UTF-8"),
        ("--system \udcff", "", r"--system: b'\xff' is not UTF-8; send UTF-8"),
        ("", b"x = \xff\n", r"stdin: b'\xff' is not UTF-8; send UTF-8"),
        ("--max-new-tokens 1000", "x\n", "exceed the context of 432"),
    ],
)
def test_in_a_script_a_mistake_is_one_line_and_status_2(
    planned: Path, monkeypatch: pytest.MonkeyPatch, more: str, stdin: str | bytes, told: str
) -> None:
    monkeypatch.chdir(planned)
    done = run(f"{CHAT.partition(' < ')[0]} {more}", stdin)
    assert isinstance(done.exception, SpecsimError)
    assert done.exception.exit_status == 2
    assert told in str(done.exception)
    assert "\n" not in str(done.exception)


def test_what_is_printed_by_help_is_what_there_is(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(planned)
    done = run(CHAT, "/help\n")
    assert re.findall(r"^  (/\w+)", done.stdout, flags=re.MULTILINE) == ["/stats", "/reset", "/help", "/quit"]


def test_the_pages_server_answers_until_it_is_asked_to_end(planned: Path) -> None:
    """In a process of its own: signals are a process's. Asked once, it waits for answers under way, and says so; asked
    again, it cancels them."""
    words = shlex.split(SERVE.replace("executor/demo", str(ROOT / "executor" / "demo")).replace("8000", "0"))
    words += ["--drain", "3600"]
    asked = {"model": "demo", "prompt": "x", "max_tokens": 400, "stream": True}
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=planned,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = line.split()[4].removesuffix(";")
        with httpx.Client(base_url=url, timeout=60.0) as client:
            answer = client.get("/models").json()
            request = client.build_request("POST", "/completions", json=asked)
            streams = [client.send(request, stream=True) for _ in range(60)]
            process.send_signal(signal.SIGTERM)
            while (health := httpx.get(f"{url.removesuffix('/v1')}/health")).status_code == 200:
                pass
            assert (health.status_code, health.json()) == (503, {"status": "closing"})
            process.send_signal(signal.SIGINT)
            assert "the service is closing" in streams[-1].read().decode()
        assert process.wait(timeout=60.0) == 0
        assert process.stderr.read() == ""
    assert [model["id"] for model in answer["data"]] == ["demo"]


class Interrupted:
    """A conversation whose answer is interrupted after its first piece."""

    def __init__(self, end: BaseException) -> None:
        self.end = end
        self.closed = False

    def say(self, text: str) -> Iterator[str]:
        try:
            yield "begun"
            raise self.end
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("end", "terminal", "goes_on"),
    [(KeyboardInterrupt(), True, True), (KeyboardInterrupt(), False, False), (Terminated(), True, False)],
    ids=["interrupt on a terminal", "in a script", "terminated"],
)
def test_an_interrupt_ends_an_answer_on_a_terminal_and_all_in_a_script(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: BaseException,
    terminal: bool,
    goes_on: bool,
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: terminal))
    talk = Interrupted(end)
    with contextlib.nullcontext() if goes_on else pytest.raises(type(end)):
        chat._answer(talk, "hello")
    assert talk.closed
    assert capsys.readouterr().out == ("begun\n" if goes_on else "begun")
