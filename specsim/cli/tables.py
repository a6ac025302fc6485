"""Rows for a person or for a program: plain text tables, JSON and CSV on stdout, and progress on stderr."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

Cell = str | int | float | None


def render(headers: Sequence[str], rows: Sequence[Sequence[Cell]], align: str = "") -> str:
    """Return a text table, two spaces between columns, without a final newline.

    `align` has one letter per column, "l" or "r"; without it, columns of numbers go right, all others left.
    Floats are written with four significant digits (whole from 1000 on), None as "-".
    """
    align = align or "".join("r" if _numeric(column) else "l" for column in _columns(headers, rows))
    lines = [list(headers), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(line, widths, align, strict=True)
        ).rstrip()
        for line in lines
    )


def emit(headers: Sequence[str], rows: Sequence[Sequence[Cell]], fmt: str, align: str = "") -> None:
    """Write the rows to stdout as "table", "json" (a list of objects keyed by header) or "csv".

    JSON and CSV carry the values unrounded; in JSON a float that is not finite is null.
    """
    match fmt:
        case "table":
            click.echo(render(headers, rows, align))
        case "json":
            objects = [dict(zip(headers, map(_finite, row), strict=True)) for row in rows]
            click.echo(json.dumps(objects, indent=2, ensure_ascii=False, allow_nan=False))
        case "csv":
            click.echo(to_csv(headers, rows), nl=False)
        case _:
            raise ValueError(f"no format called {fmt!r}: table, json or csv")


def to_csv(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The rows as CSV with a line of headers, unrounded."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headers, *rows])
    return text.getvalue()


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Yield `advance(count)`, which keeps "label 42 %" on stderr during the block, if that is a terminal."""
    stream, terminal = sys.stderr, sys.stderr.isatty()
    done, shown = 0, -1

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        percent = 100 * done // max(total, 1)
        if terminal and percent > shown:  # at most a hundred writes, however many steps
            shown = percent
            stream.write(f"\r{label} {percent} %")
            stream.flush()

    advance(0)
    try:
        yield advance
    finally:
        if terminal:
            stream.write("\r\x1b[K")  # ANSI: clear to the end of the line
            stream.flush()


def _columns(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    return [[row[i] for row in rows] for i in range(len(headers))]


def _numeric(column: Sequence[Cell]) -> bool:
    present = [cell for cell in column if cell is not None]
    return bool(present) and all(isinstance(cell, int | float) for cell in present)


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case bool():
            return "yes" if cell else "no"
        case float():
            return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
        case _:
            return str(cell)


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
