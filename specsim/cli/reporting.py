"""`--report`: a plan as a page, for every command that has one in hand."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

import click

from specsim.answer import Plan
from specsim.api import Simulation
from specsim.cli.options import check_folder
from specsim.errors import InputError
from specsim.planner.explain import Explanation

PAGES: Final = (".html", ".htm")

report_option: Final = click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with answer, timelines to zoom, pictures and sources here: one .html file, opened offline.",
)


def check_report(path: Path | None) -> None:
    """Raise InputError for a page that could not be written: before a search, not after it."""
    if path is not None:
        if path.suffix not in PAGES:
            raise InputError("is no name of a page", where=str(path), hint=f"end it in {PAGES[0]}")
        check_folder(path)


def write_report(path: Path, plan: Plan, found: Simulation, explanation: Explanation | None = None) -> None:
    """Raises InputError where it cannot be written."""
    pages = import_module("specsim.report.page")  # matplotlib: only who asks for a picture waits for it
    text = pages.page(plan, found, explanation)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None
