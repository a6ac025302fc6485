"""`specsim published`: what published systems were measured at, beside what their schedules predict."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from specsim.cli.options import check_picture, format_option
from specsim.cli.status import status
from specsim.cli.tables import Cell, emit, render
from specsim.errors import InputError
from specsim.published import fit, store, summary
from specsim.published.cells import FITTED_TOKENS, cells

CSV = ("model", "environment", "workload", "output_tokens", "system", "tokens_per_s")


class Lengths(click.ParamType[tuple[int, ...]]):
    """Output lengths such as 16,32,64."""

    name = "lengths"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        words = str(value).split(",")
        if not all(word.strip().isdecimal() and int(word) >= 2 for word in words):
            hint = "give whole numbers from 2 on, for example 16,32"
            raise InputError(f"{value!r} is no list of output lengths", where="--output-tokens", hint=hint)
        return tuple(int(word) for word in words)


@click.command("published")
@click.option("--output-tokens", type=Lengths(), default="32", show_default=True, help="Output lengths, as 16,32,64.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw published against predicted: .png, .svg or .pdf.")
@click.option(
    "--fit", "refit", is_flag=True, help="Fit the parameters anew first, which takes minutes, and store them."
)
@format_option("table", "json", "csv")
def published(output_tokens: tuple[int, ...], plot: str | None, refit: bool, fmt: str) -> None:
    """Predict what published systems were measured at.

    Tokens per second are counted as each system counts them; "useful" counts only those that were asked for. Parameters
    were fitted at 32 output tokens; other lengths are predictions.
    """
    if plot is not None:
        check_picture(plot)
    if refit:
        with status("fitting") as say:
            found = fit.fit(say)
        store.write(found, store.path())
        store.stored.cache_clear()
    calibration = store.stored()
    table = summary.rows(calibration.values, output_tokens)
    if plot is not None:
        picture = import_module("specsim.published.picture")  # matplotlib: only who asks for a picture waits for it
        picture.save(picture.draw(summary.rows(calibration.values, (FITTED_TOKENS,))), plot)
    if fmt == "table":
        click.echo(_text(calibration, table))
        return
    emit(CSV, [_plain(row) for row in table], fmt)


def _plain(row: summary.Row) -> tuple[Cell, ...]:
    cell = row.cell
    return cell.model, cell.environment, cell.workload, row.output_tokens, cell.system, row.counted


def _text(calibration: fit.Fit, table: list[summary.Row]) -> str:
    """Everything that a person may ask of the comparison."""
    rows = [(*_plain(row)[:5], row.published, row.counted, _percent(row.error), row.useful) for row in table]
    parts = [render((*CSV[:5], "published", "predicted", "error", "useful"), rows, "lllrlrrrr")]
    if groups := summary.summaries(table):
        heads = ("cells", "n", "median |error|", "winner right", "Spearman")
        parts.append(
            render(
                heads,
                [
                    (
                        g.group,
                        g.cells,
                        _percent(g.median_error, sign=False),
                        f"{g.right_winners} of {g.contests}",
                        g.spearman,
                    )
                    for g in groups
                ],
            )
        )
        speedups = [(model, *map(_times, pair)) for model, *pair in summary.speedups(table)]
        parts.append(render(("SpecOffload over FlexGen", "published", "predicted"), speedups, "lrr"))
    busy = [
        (name, *(_percent(share, sign=False) for share in pair))
        for name, *pair in summary.utilisation(calibration.values)
    ]
    parts.append(render(("GPU busy in decode", "reported", "predicted"), busy, "lrr"))
    shrunk = [
        (model, f"{large} over {small} GB", _percent(reported), _percent(predicted))
        for model, large, small, reported, predicted in summary.shrinking(calibration.values)
    ]
    parts.append(render(("FlexGen", "VRAM", "reported", "predicted"), shrunk, "llrr"))
    left_out = ", ".join(f"{name} {_percent(value, sign=False)}" for name, value in calibration.left_out.items())
    batches = sum(name.startswith("batch/") for name in calibration.values)
    parts.append(
        f"fitted to {len(cells())} figures at {FITTED_TOKENS} output tokens: {len(calibration.values) - batches} "
        f"parameters, and {batches} batches that are not public\n"
        f"median |error| of a workload that the fit did not see: {left_out}"
    )
    return "\n\n".join(parts)


def _percent(share: float | None, *, sign: bool = True) -> str:
    return "-" if share is None else f"{100 * share:{'+' if sign else ''}.1f} %"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x"
