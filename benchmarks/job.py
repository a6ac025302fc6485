"""Seconds that the simulation of a whole job takes: 512 requests of 128 tokens on Mixtral 8x7B.

    python -m benchmarks.job [--json]

The plan, for an RTX 4090 with Mistral 7B as the draft, is made first and not timed. Then the job is simulated five
times, each from nothing; the median is printed beside the goal.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time

import specsim
from specsim.simulator.job import simulate_job

_REPETITIONS = 5
_GOAL_S = 2.0
_REQUESTS, _TOKENS = 512, 128


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job", description="Time to simulate a job.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    plan = specsim.plan(
        gpu="rtx4090",
        target="mixtral-8x7b",
        draft="mistral-7b",
        workload="humaneval",
        requests=_REQUESTS,
        output_tokens=_TOKENS,
    )
    times = []
    for _ in range(_REPETITIONS):
        began = time.perf_counter()
        job = simulate_job(plan.case, plan.decision)
        times.append(time.perf_counter() - began)
        assert job.tokens == _REQUESTS * _TOKENS, f"{job.tokens} useful tokens"
    seconds = statistics.median(times)
    result = {
        "system": f"{platform.python_implementation()} {platform.python_version()}",
        "repetitions": _REPETITIONS,
        "strategy": plan.decision.strategy,
        "gamma": plan.decision.policy.gamma,
        "rounds": len(job.rounds),
        "simulated_s": job.makespan_s,
        "seconds": seconds,
        "goal_s": _GOAL_S,
        "met": seconds <= _GOAL_S,
    }
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{_REQUESTS} requests x {_TOKENS} tokens, median of {_REPETITIONS}, {result['system']}")
    print(f"{result['strategy']}, gamma {result['gamma']}: {result['rounds']} rounds, {job.makespan_s:.0f} s simulated")
    print(f"simulated in {seconds:.2f} s (goal {_GOAL_S:.1f} s: {'met' if result['met'] else 'missed'})")


if __name__ == "__main__":
    main()
