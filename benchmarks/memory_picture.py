"""What `python -m benchmarks.memory --out` found, drawn: planned against measured peaks, and speed against memory.

python -m benchmarks.memory_picture RESULTS.json PEAKS.png CURVE.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from specsim.report.style import GRID, INK, MARKS, PALETTE, QUIET, heading, legend, new_figure, quiet, save

MIB: Final = 2**20
WITHIN: Final = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_picture", description="Memory, drawn.")
    for name in ("results", "peaks", "curve"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    found = json.loads(options.results.read_text())
    draw_peaks(found["peaks"], options.peaks)
    draw_curve(found["curve"][-1]["rows"], options.curve)


def draw_peaks(pairs: list[dict[str, Any]], path: Path) -> None:
    """A point for each run, each pair with a mark of its own, and the band of `WITHIN`."""
    figure = new_figure(6.4, 5.4)
    heading(figure, "Peak memory, planned and measured", "One point per run; the band is 5 % around the plan.")
    axes = figure.add_axes((0.11, 0.19, 0.85, 0.65))
    sizes = [row[name] / MIB for pair in pairs for row in pair["rows"] for name in ("planned", "measured")]
    ends = [min(sizes) / 1.15, max(sizes) * 1.15]
    axes.fill_between(ends, [e * (1 - WITHIN) for e in ends], [e * (1 + WITHIN) for e in ends], color=GRID, lw=0)
    axes.plot(ends, ends, color=QUIET, lw=0.8)
    handles = []
    for pair, color, mark in zip(pairs, PALETTE, MARKS, strict=False):
        planned, measured = ([row[name] / MIB for row in pair["rows"]] for name in ("planned", "measured"))
        handles += axes.plot(planned, measured, mark, color=color, ms=6, mec="white", mew=0.6, label=pair["pair"])
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="planned, MiB", ylabel="measured, MiB")
    quiet(axes, grid="both")
    legend(figure, handles)
    save(figure, path)


def draw_curve(rows: list[dict[str, Any]], path: Path) -> None:
    """Useful tokens/s over the bytes that generation takes: what shorter sweeps and chunks give, and capped caches."""
    figure = new_figure(7.2, 5.0)
    heading(
        figure,
        "Less memory to generate with",
        "Caches and temporaries as measured, over those of the plan for plenty of memory; bars span all runs.",
    )
    axes = figure.add_axes((0.1, 0.2, 0.86, 0.62))
    most = rows[0]
    kinds = {
        "shorter sweeps and chunks": [row for row in rows if row["kv_share"] == 1],
        "and caches capped": [row for row in rows if row["kv_share"] < 1],
    }
    handles = []
    for (label, some), color, mark in zip(kinds.items(), PALETTE, MARKS, strict=False):
        x = [row["measured"] / most["measured"] * 100 for row in some]
        y = [row["tokens_per_s"] / most["tokens_per_s"] * 100 for row in some]
        handles += axes.plot(x, y, f"{mark}-", color=color, lw=1, ms=6, label=label)
        low, high = ([pick(r["spread"]) / most["tokens_per_s"] * 100 for r in some] for pick in (min, max))
        axes.vlines(x, low, high, color=color, lw=1)
    axes.axvline(35, color=INK, lw=0.8, ls=":")
    axes.axhline(96, color=INK, lw=0.8, ls=":")
    axes.text(35, axes.get_ylim()[0], " 65 % less", color=INK, size=9, va="bottom")
    axes.text(axes.get_xlim()[1], 96, "96 %", color=INK, size=9, va="bottom", ha="right")
    axes.set(xlabel="memory to generate with, % of the first plan's", ylabel="tokens/s, % of the first plan's")
    quiet(axes, grid="both")
    legend(figure, handles)
    save(figure, path)


if __name__ == "__main__":
    main()
