"""Every notebook answers the question at its top, and what it shows is what its code prints in a real kernel."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("ipykernel", reason="ipykernel is not installed")
execute = pytest.importorskip("notebooks.execute", reason="nbclient or nbformat is not installed")

NAMES = execute.names()
#: what this one measures differs from run to run, and so does its answer; it takes most of a minute
MEASURED = "05-predicted-vs-measured"
MOST_BYTES, MOST_PICTURE_BYTES = 600_000, 150_000


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_is_a_notebook_for_each_question() -> None:
    assert [name[:2] for name in NAMES] == [f"{n:02}" for n in range(1, 7)]


@pytest.mark.parametrize("name", NAMES)
def test_it_was_executed_as_it_is(name: str) -> None:
    if why := execute.stale(execute.load(name)):
        pytest.fail(f"notebooks/{name}.ipynb {why}", pytrace=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_at_its_top_and_the_answer_at_its_bottom(name: str) -> None:
    notebook = execute.load(name)
    title, _, question = notebook.cells[0].source.partition("\n")
    assert title.startswith(f"# {name[:2]} · ")
    assert question.strip().splitlines()[0].startswith("**Question: ")
    assert "?**" in question
    assert notebook.cells[-1].cell_type == "code"
    assert execute.answer(notebook).endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_it_has_pictures_and_stays_small(name: str) -> None:
    assert (execute.FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES
    kept = outputs(execute.load(name))
    pictures = [base64.b64decode(o.data["image/png"]) for o in kept if "image/png" in o.get("data", {})]
    assert 1 <= len(pictures) <= 4
    assert max(map(len, pictures)) < MOST_PICTURE_BYTES
    assert [o for o in kept if o.output_type == "error" or o.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", [n if n != MEASURED else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_it_runs_in_a_real_kernel_and_comes_to_the_same_answer(name: str) -> None:
    kept = execute.load(name)
    done = execute.execute(kept)
    assert [o for o in outputs(done) if o.get("name") == "stderr"] == []
    if name != MEASURED:
        assert execute.answer(done) == execute.answer(kept), f"notebooks/{name}.ipynb is out of date: make notebooks"


def test_an_edited_notebook_is_told_in_a_line() -> None:
    notebook = execute.load(NAMES[0])
    assert execute.stale(notebook) is None
    notebook.cells[-1].source += "\n"
    assert execute.stale(notebook) == "was edited and not executed: make notebooks"


def test_an_unknown_name_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute.main(["07"]) == 2
    assert capsys.readouterr().err.startswith("no notebook '07'; there are: 01-first-plan, ")
