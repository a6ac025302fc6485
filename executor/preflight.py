"""Before anything is allocated: whether the machine is still the one that was planned for, and has room for the files.

What a plan takes from datasheets is no claim about this machine. What was measured is: then the plan was made here, and
where it is not so any more its prediction is of no use, and its choices may be wrong.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import torch

from executor.devices import Devices
from executor.engine import MOST_SPANS
from executor.journal import JOURNAL
from executor.outputs import OUTPUTS
from executor.requests import Request
from specsim.answer import Plan
from specsim.errors import InputError
from specsim.hardware import Machine
from specsim.here.system import read_system
from specsim.schedule.lower import lower_prefill, lower_rounds
from specsim.schedule.round import RoundShape
from specsim.units import show

#: of an output's line: its keys; and the text of a token, which in most languages is a third of that
LINE_BYTES: Final = 200
TEXT_BYTES: Final = 16
#: of journal.jsonl, for a token that has a record to itself
RECORD_BYTES: Final = 40
#: of trace.json, for a task in a timeline
SPAN_BYTES: Final = 300
#: metrics.json, the journal's first record, and what file systems take beside files
REST_BYTES: Final = 2**20


def check_machine(machine: Machine, devices: Devices, root: Path = Path("/")) -> None:
    """Raise InputError where this is not the machine that the plan was measured for, with all that has changed."""
    changed = list(_changes(machine, devices, root))
    if changed:
        hint = "measure and plan again, or run it --anyway"
        raise InputError(f"this is not the machine of the plan: {'; '.join(changed)}", where="run", hint=hint)


def _changes(machine: Machine, devices: Devices, root: Path) -> Iterator[str]:
    measured = {fact.field for fact in machine.facts if fact.kind == "measured"}
    cores = read_system(root).cores
    if "host.cores" in measured and cores < machine.host.cores:
        yield f"it had {machine.host.cores} cores, and this process may use {cores}"
    if machine.gpu is not None and devices.cuda and "gpu.vram" in measured:
        name = torch.cuda.get_device_name(devices.gpu)
        if name != machine.gpu.title:
            yield f"its GPU was {machine.gpu.title}, and this one is {name}"


def check_vram(stores: int, devices: Devices) -> None:
    """Raise InputError where the plan's stores exceed what the GPU has left."""
    if not devices.cuda:
        return
    free, _ = torch.cuda.mem_get_info(devices.gpu)
    if stores > free:
        what = f"needs {show(stores, 'bytes')} of VRAM for the plan's stores; the GPU has {show(free, 'bytes')} left"
        hint = "end what else uses it, or plan again with a smaller --vram"
        raise InputError(what, where="run", hint=hint)


def check_disk(out: Path, plan: Plan, requests: Sequence[Request], *, text: bool) -> None:
    """Raise InputError where the file system of `out`, which may not be there yet, has no room for what a run of
    `requests` writes at most, beside what it has written before; `text`: its outputs have text, not token ids alone."""
    place = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    written = sum(file.stat().st_size for file in (out / OUTPUTS, out / JOURNAL) if file.is_file())
    needed, free = files_bytes(plan, requests, text=text) - written, shutil.disk_usage(place).free
    if needed > free:
        what = f"the files of the run may take {show(needed, 'bytes')}, and {show(free, 'bytes')} are left"
        raise InputError(what, where=str(out), hint="make room or choose another -o")


def files_bytes(plan: Plan, requests: Sequence[Request], *, text: bool) -> int:
    """Bytes of outputs.jsonl, the journal, trace.json and metrics.json, if no request ends before its last token and
    every round adds one to each: text apart, which is counted by the token, an upper bound."""
    digits = len(str(plan.case.target.vocab))
    per_token = digits + len(", ") + (TEXT_BYTES if text else 0) + RECORD_BYTES + digits
    outputs = sum(LINE_BYTES + 6 * len(r.id) + per_token * r.max_new_tokens for r in requests)
    tasks = _tasks(plan, requests)
    return outputs + SPAN_BYTES * 2 * min(tasks, MOST_SPANS) + REST_BYTES


def _tasks(plan: Plan, requests: Sequence[Request]) -> int:
    case, decision = plan.case, plan.decision
    rows = min(decision.policy.in_flight, len(requests))
    waves = math.ceil(len(requests) / rows)
    rounds = max(r.max_new_tokens for r in requests)
    shape = RoundShape(float(rows), case.workload.prompt_tokens_mean)
    per_wave = len(lower_prefill(case, decision, [case.workload.prompt_tokens_mean] * rows).tasks)
    return waves * (per_wave + (rounds + 1) * len(lower_rounds(case, decision, shape, 1).tasks))
