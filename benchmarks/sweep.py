"""Time a sweep of 500 points, and tell how far its quick plans are from those of a full search.

Run with: python -m benchmarks.sweep [--jobs N] [--check N] [-o FILE.json]

Mixtral 8x7B on an RTX 4090 with 10 link rates, 5 sizes of VRAM and 5 of RAM, with a Mistral 7B draft and without, is
planned anew at every point, in as many processes as there are cores; starting them and the full searches of the base
questions are in the time. Then some of the points, drawn at random, are searched in full, and compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

import specsim
from specsim.units import GiB

QUESTION = {"gpu": "rtx4090", "target": "mixtral-8x7b", "workload": "humaneval"}
VARY = {
    "link": "8..64GB/s:10",
    "vram": "12..48GiB:5",
    "ram": [size * GiB for size in (64, 96, 128, 192, 256)],
    "draft": "none,mistral-7b",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--check", type=int, default=30, help="points to search in full")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    sweep = specsim.sweep(VARY, jobs=options.jobs, **QUESTION)
    seconds = time.perf_counter() - start
    points = list(sweep.points())
    print(f"{len(points)} points in {seconds:.1f} s: {len(points) / seconds:.1f} points/s on {os.cpu_count()} cores")
    chosen = random.Random(500).sample(range(len(points)), options.check)
    gaps = {}
    for number in chosen:
        point = dict(zip(VARY, ([value] for value in points[number]), strict=True))
        full = specsim.sweep(point, jobs=1, thorough=True, **QUESTION).answers[0].tokens_per_second
        quick = sweep.answers[number].tokens_per_second
        if full and quick:
            gaps[number] = quick / full - 1
        print(f"  {sweep.rows()[number][:4]}: {quick:.1f}, {full:.1f} in full", flush=True)
    found = {
        "points": len(points),
        "seconds": round(seconds, 2),
        "checked": len(gaps),
        "median": round(statistics.median(gaps.values()), 5) if gaps else None,
        "worst": round(min(gaps.values()), 5) if gaps else None,
        "best": round(max(gaps.values()), 5) if gaps else None,
    }
    if gaps:
        print("quick against full: median {median:+.2%}, worst {worst:+.2%}, best {best:+.2%}".format(**found))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
