"""Ten turns over one conversation: the time to each turn's first token, with what was said cached and read anew.

    python -m benchmarks.chat --target DIR --draft DIR [--machine FILE] [--ram 1GiB] [--turns 10] [--repeat 3]

Both ways run in turns, in one process each with a service of its own, and must give the same tokens. Prints the median
of the repeats as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from time import perf_counter
from typing import Any

import specsim
from executor import demo
from executor.opening import Opened, open_models
from executor.options import Setting
from executor.ranks.stage import stage_of
from executor.requests import Request
from executor.service.opening import open_service
from executor.service.service import Ended, Service
from specsim.units import parse


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", type=Path, default=demo.target_directory(), help="checkpoint (default: the demo's)")
    parser.add_argument("--draft", type=Path, default=demo.draft_directory(), help="checkpoint (default: the demo's)")
    parser.add_argument("--machine", default="desktop-cpu", help="profile of this machine")
    parser.add_argument("--ram", default="32MiB", help="budget of RAM")
    parser.add_argument("--acceptance", type=float, default=0.6, help="what the plan counts on")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--new", type=int, default=48, help="tokens that each turn adds to the conversation")
    parser.add_argument("--output", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    plan = specsim.plan(
        machine=asked.machine,
        ram=parse(asked.ram, "bytes"),
        target=str(asked.target),
        draft=str(asked.draft),
        acceptance=asked.acceptance,
        requests=1,
        prompt_tokens=asked.turns * (asked.new + asked.output),
        output_tokens=asked.output,
    )
    opened = open_models(
        plan, Setting(asked.target, asked.draft if plan.case.draft is not None else None), stage_of(plan, None)
    )
    runs = [[talk(opened, asked, keep=keep) for keep in (True, False)] for _ in range(asked.repeat)]
    for kept, anew in runs:
        if [turn["answer"] for turn in kept] != [turn["answer"] for turn in anew]:
            print("the two ways gave different tokens", file=sys.stderr)
            return 1
    rows = []
    for number in range(asked.turns):
        kept_s, anew_s = (median(run[way][number]["first_s"] for run in runs) for way in (0, 1))
        turn = runs[0][0][number]
        shown = {"turn": number + 1, "prompt": turn["prompt"], "read": turn["read"]}
        rows.append(shown | {"first_s": kept_s, "first_s_anew": anew_s, "share": kept_s / anew_s})
    print(json.dumps({"repeat": asked.repeat, "turns": rows}, indent=2))
    return 0


def talk(opened: Opened, asked: argparse.Namespace, *, keep: bool) -> list[dict[str, Any]]:
    """A conversation of random tokens: what each turn read, its answer, and the seconds to its first token."""
    rng = random.Random(1)
    said: list[int] = []
    turns = []
    with open_service(opened, queue=1, keep=keep) as service:
        for _ in range(asked.turns):
            said += [rng.randrange(opened.target.architecture.model.vocab) for _ in range(asked.new)]
            turns.append(ask(service, said, asked.output))
            said += turns[-1]["answer"]
    return turns


def ask(service: Service, prompt: list[int], new: int) -> dict[str, Any]:
    events: SimpleQueue[tuple[int, ...] | Ended] = SimpleQueue()
    began = perf_counter()
    service.ask(lambda index: Request(index, str(index), tuple(prompt), new), events.put)
    heard = events.get()
    first_s = perf_counter() - began
    while not isinstance(heard, Ended):
        heard = events.get()
    if heard.error is not None:
        raise heard.error
    generation = heard.generation
    assert generation is not None, "a service that did not fail has one"
    read = len(prompt) - generation.reused
    return {"prompt": len(prompt), "read": read, "first_s": first_s, "answer": generation.output_ids}


if __name__ == "__main__":
    sys.exit(main())
