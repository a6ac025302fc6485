"""`python -m fuzz TARGET --runs N --seconds S`: one campaign in a process of its own, and a line of what came of it."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
TARGETS: Final = tuple(sorted(file.stem for file in (_HERE / "targets").glob("[a-z]*.py")))
#: of one input: longer is a hang
_TIMEOUT_S: Final = 10
#: of the whole process; without inputs it has 50 to 350 MB, most of it torch
_MEMORY_MB: Final = 1024
_STATISTIC: Final = re.compile(r"^stat::(\w+):\s+(\d+)$", re.MULTILINE)


def campaign(target: str, *, runs: int, seconds: int, seed: int, keep: Path) -> dict[str, Any]:
    """Fuzz `target` until `runs` executions or `seconds` are over, or something is found, which is left in `keep`."""
    seeds = importlib.import_module(f"fuzz.targets.{target}").SEEDS
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(seeds):
            (Path(folder) / f"seed-{number:03}").write_bytes(content)
        options = {
            "runs": runs,
            "max_total_time": seconds,
            "seed": seed,
            "timeout": _TIMEOUT_S,
            "rss_limit_mb": _MEMORY_MB,
            "malloc_limit_mb": _MEMORY_MB,
            "max_len": 2 * max(map(len, seeds)),
            "print_final_stats": 1,
            "artifact_prefix": f"{keep}/{target}-",
        }
        command = [sys.executable, "-m", "fuzz.harness", target, *(f"-{key}={value}" for key, value in options.items())]
        done = subprocess.run([*command, folder], cwd=_HERE.parent, capture_output=True, text=True, errors="replace")
        corpus = len(list(Path(folder).iterdir()))
    statistics = {name: int(number) for name, number in _STATISTIC.findall(done.stderr)}
    if "number_of_executed_units" not in statistics:
        sys.exit(f"fuzz: {target} did not run:\n{done.stderr[-3000:]}")
    found = done.returncode != 0
    if found:
        print(f"{done.stdout[-3000:]}{done.stderr[-3000:]}", file=sys.stderr)
    return {
        "target": target,
        "seed": seed,
        "executions": statistics["number_of_executed_units"],
        "per_second": statistics["average_exec_per_sec"],
        "peak_rss_mb": statistics["peak_rss_mb"],
        "corpus": corpus,
        "found": int(found),
        "commit": _commit(),
        "date": date.today().isoformat(),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=_HERE, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions at most")
    parser.add_argument("--seconds", type=int, default=600, help="seconds at most")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="where inputs go that broke a reader")
    parser.add_argument("--record", type=Path, help="a file of JSON lines to append the outcome to")
    options = parser.parse_args()
    outcome = campaign(
        options.target, runs=options.runs, seconds=options.seconds, seed=options.seed, keep=options.keep.absolute()
    )
    print(json.dumps(outcome))
    if options.record:
        with options.record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome) + "\n")
    sys.exit(outcome["found"])


if __name__ == "__main__":
    main()
