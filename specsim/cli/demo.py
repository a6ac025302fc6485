"""The demonstration: the shipped pair of models on this machine, whatever it is, with too little RAM and a slow disk.

The disk is held to a rate that stands to the small target as a real disk does to a real model, so that the plan has
something to decide on any machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from specsim import api, machines
from specsim.answer import Plan
from specsim.cli.status import status
from specsim.runtime import executor
from specsim.units import MiB

MACHINE: Final = "machine.yaml"
RAM_BYTES: Final = 7.5 * MiB
DISK_BYTES_PER_S: Final = 12e6
#: the longest prompt of the first ones
PROMPT_TOKENS, OUTPUT_TOKENS, REQUESTS = 91, 32, 16


def demo(out: Path) -> tuple[Plan, Any]:
    """Measure the machine for some fifteen seconds, plan, and say how to run it: the plan and the `RunOptions`."""
    pair = executor("executor.demo")
    with status("measuring") as say:
        api.measure(out / MACHINE, disk_path=pair.target_directory(), quick=True, progress=say)
    machine = machines.assemble(machine=str(out / MACHINE), ram=RAM_BYTES, disk_bytes_per_s=DISK_BYTES_PER_S)
    with status("planning") as say:
        plan = api.plan(
            machine=machine,
            target=pair.target_directory(),
            draft=pair.draft_directory(),
            acceptance=str(pair.pair_file()),
            requests=REQUESTS,
            prompt_tokens=PROMPT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
            progress=say,
        )
    options = executor("executor.options").RunOptions(
        target=pair.target_directory(),
        prompts=pair.prompts_file(),
        out=out,
        draft=pair.draft_directory() if plan.decision.policy.draft is not None else None,
        throttle={"disk": DISK_BYTES_PER_S},
        limit=REQUESTS,
    )
    return plan, options
