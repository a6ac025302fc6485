"""What each decision of the planner is worth, in five situations: a table, and a picture with a panel for each.

    python -m benchmarks.ablation [--plot docs/ablation.png] [--format csv]

The situations differ in everything, so that every decision matters in one of them: Mixtral on the two machines of
SpecOffload's paper, a 32B model that chats on a desktop, a 70B one that summarises on a data centre's GPU, and an 8B
one without a GPU, in RAM that holds three quarters of it. What a decision is fixed to, and who fixes it so, is in
`specsim.planner.ablation`. Every number is predicted.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from specsim import api
from specsim.cli.ablation import HEADERS, rows
from specsim.cli.tables import emit
from specsim.report import pictures
from specsim.units import GiB

SITUATIONS: Final[tuple[Mapping[str, Any], ...]] = (
    {"machine": "env1", "target": "mixtral-8x7b", "draft": "mistral-7b", "workload": "humaneval"},
    {"machine": "env2", "target": "mixtral-8x22b", "draft": "mistral-7b", "workload": "humaneval"},
    {"gpu": "rtx3090", "target": "qwen2.5-32b", "draft": "qwen2.5-0.5b", "workload": "chat", "requests": 16},
    {"gpu": "a100-40gb", "target": "llama-3.3-70b", "draft": "llama-3.2-1b", "workload": "summeval"},
    {
        "machine": "desktop-cpu",
        "ram": 12.0 * GiB,
        "target": "llama-3.1-8b",
        "draft": "llama-3.2-1b",
        "workload": "chat",
        "requests": 16,
    },
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
    parser.add_argument("--plot", help="draw the shares as bars: .png, .svg or .pdf")
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(api.ablation, [api.case(**situation) for situation in SITUATIONS]))
    if options.plot:
        pictures.save(pictures.ablations(found), options.plot)
    table = [(one.case.machine.name, one.case.target.name, *row) for one in found for row in rows(one)]
    emit(("machine", "model", *HEADERS), table, options.format)


if __name__ == "__main__":
    main()
