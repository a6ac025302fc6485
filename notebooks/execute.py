"""Execute notebooks in a fresh kernel and keep what they print: `python -m notebooks.execute [NAME ...]`.

What differs from one execution to the next for no reason (times, the kernel's versions) is left out. A digest of the
code that was executed is kept in the file, so that a test can tell where code was edited and not executed.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient

FOLDER: Final = Path(__file__).parent
#: a cell that takes longer is stuck, in seconds
LIMIT: Final = 300
_KERNEL: Final = {"display_name": "Python 3", "language": "python", "name": "python3"}

Notebook = Any  # nbformat has no types


def names() -> list[str]:
    """All notebooks of this folder, in their order."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def load(name: str) -> Notebook:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(notebook: Notebook) -> Notebook:
    """The notebook's code, run from first to last in a new kernel as Jupyter would from its folder: a new notebook with
    the outputs. Raises CellExecutionError at the first cell that fails."""
    done = nbformat.from_dict(notebook)
    where = {"metadata": {"path": str(FOLDER)}}
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]  # a checkout that is not installed works, too
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    client = NotebookClient(done, kernel_name=_KERNEL["name"], resources=where, timeout=LIMIT)
    client.record_timing, client.coalesce_streams = False, True  # nothing that differs from one execution to the next
    client.execute(env=environment)
    done.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "specsim": {"executed": digest(done)}})
    return done


def digest(notebook: Notebook) -> str:
    """Of all code, in its order."""
    code = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def stale(notebook: Notebook) -> str | None:
    """Why the outputs that are kept are not those of the code; None where they are."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if notebook.metadata.get("specsim", {}).get("executed") != digest(notebook):
        return "was edited and not executed: make notebooks"
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        return "has cells that were not executed in their order: make notebooks"
    return None


def answer(notebook: Notebook) -> str:
    """What the last cell says."""
    return "".join(output.get("text", "") for output in notebook.cells[-1].get("outputs", [])).strip()


def main(arguments: Sequence[str]) -> int:
    """Execute the notebooks that are named, or all, and save them with their outputs."""
    if unknown := set(arguments) - set(names()):
        print(f"no notebook {min(unknown)!r}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    for name in arguments or names():
        done = execute(load(name))
        nbformat.write(done, FOLDER / f"{name}.ipynb")
        print(f"{name}: {answer(done)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
