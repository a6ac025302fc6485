"""From a plan and checkpoint directories to a loaded job, for runs and for services alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from executor.checkpoint.checkpoint import Checkpoint, open_checkpoint
from executor.checkpoint.read import Reader
from executor.devices import Devices, devices_for, lanes_for, worker_for
from executor.engine import MOST_SPANS, Engine
from executor.job import Job
from executor.links import disk_pacer, link_of
from executor.loading import load
from executor.options import Setting
from executor.patience import Patience
from executor.preflight import check_vram
from executor.process import check_room
from executor.ranks.stage import Stage
from executor.setup import NUMERICS, Ways, prepare
from executor.shrink import is_out_of_memory
from executor.threads import dismiss_team
from executor.tokenizer import Tokenizer, load_tokenizer
from specsim.answer import Plan
from specsim.cost.work import copy
from specsim.errors import InputError
from specsim.memory import stage_items, totals
from specsim.schedule.graph import Task
from specsim.stages import stages


@dataclass(frozen=True, slots=True)
class Opened:
    """Checkpoints that were found whole; nothing of them is loaded yet. `stage` is the rank's place in a run."""

    plan: Plan
    setting: Setting
    stage: Stage
    devices: Devices
    target: Checkpoint
    draft: Checkpoint | None
    tokenizer: Tokenizer | None

    def check_room(self, ranks: range = range(1)) -> None:
        """Raise InputError where the stores of the stages of some ranks, which are on this machine, and their processes
        need more memory than there is."""
        itself = int(self.plan.case.machine.host.process_bytes) * len(ranks)
        check_room(self._stores(in_ram(self.devices), ranks), itself)
        check_vram(self._stores(("vram",), range(1)), self.devices)

    def _stores(self, memories: Collection[str], ranks: range) -> int:
        """Bytes that the plan takes of some memories at most, for the stages of some ranks together."""
        case, decision = self.plan.case, self.plan.decision
        peaks = [totals(stage_items(stage, decision)).values() for stage in stages(case, decision.policy)]
        most = (max(sum(phase.get(memory, 0.0) for memory in memories) for phase in peaks[rank]) for rank in ranks)
        return int(sum(most))

    @contextmanager
    def load(self, spans: int = MOST_SPANS) -> Iterator[Job]:
        """The job, ready to run, with its threads until the end. Raises InputError as `executor.setup.prepare`, and
        StalledError where a disk hangs."""
        machine, throttle = self.plan.case.machine, self.setting.throttle
        disk, patience, pacer = machine.disk, Patience(machine, throttle), disk_pacer(machine, throttle)
        link = link_of(machine, throttle, cuda=self.devices.cuda)
        decode = self.tokenizer.decode if self.tokenizer else None
        adaptive = self.setting.draft_length == "adaptive"
        ways = Ways(NUMERICS[self.setting.numerics], decode, adaptive=adaptive)
        with (
            closing(Reader(throttle=pacer, queue_depth=disk.queue_depth, block_bytes=disk.block_bytes)) as reader,
            Engine(lanes_for(self.devices), worker_for(self.devices), patience=patience, spans=spans) as engine,
        ):
            dismiss_team()  # whatever this thread computed before: the tasks have a team of their own
            blocks = Task("load", "disk", "load", (copy(disk.queue_depth * disk.block_bytes),), ())
            models = self.target, self.draft
            prepared = partial(prepare, self.plan, *models, engine, self.devices, link, reader, ways, self.stage)
            yield load(prepared, reader, patience(blocks))


def open_models(plan: Plan, setting: Setting, stage: Stage) -> Opened:
    """Raises InputError for what can be known before anything is allocated: options that do not go with the plan, a
    missing GPU, files that are not there or not whole."""
    setting.check(plan)
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    return Opened(
        plan,
        setting,
        stage,
        devices_for(plan.case.machine, emulate_gpu=setting.emulate_gpu),
        open_checkpoint(setting.target),
        open_checkpoint(setting.draft) if setting.draft is not None else None,
        load_tokenizer(setting.target),
    )


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise InputError where memory runs out within, and nothing can be made smaller."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "plan again with a smaller --ram or --vram: the process itself needs some too"
        told = f"out of memory: {error}".removesuffix(": ")  # Python says nothing of how much
        raise InputError(told, where="run", hint=hint) from None


def in_ram(devices: Devices) -> tuple[str, ...]:
    """The memories of a plan that are RAM of this process: an emulated GPU's, too."""
    return ("ram",) if devices.cuda else ("ram", "vram")
