"""A rank that is not the first, from start to end: it computes its share, and lets the first tell what goes wrong."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final

import torch

from executor.checkpoint.checkpoint import open_checkpoint
from executor.checkpoint.read import Reader
from executor.devices import devices_for, lanes_for, worker_for
from executor.engine import Engine
from executor.links import disk_pacer, link_of
from executor.options import RunOptions
from executor.patience import Patience
from executor.process import keep_heap_small
from executor.ranks.messages import Kind, Report
from executor.ranks.pulse import Reports
from executor.ranks.remote import DismissedError, Orders, serve
from executor.ranks.world import RankError, World
from executor.setup import NUMERICS, Ways
from executor.threads import dismiss_team
from specsim.answer import Plan
from specsim.errors import SpecsimError

#: rank 0 has told of an error by then; who left earlier would look like its cause to the neighbours
_LEAVE_S: Final = 3.0


def assist(plan: Plan, options: RunOptions, world: World) -> None:
    """Do this rank's share of a run. Raises SystemExit where the first rank tells what ended it, and RankError where
    that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it comes to all: the first decides what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing of the run is kept here
    orders = Orders(world.desks[0])
    machine, disk = plan.case.machine, plan.case.machine.disk
    with Reports(world.desks[0]) as reports, _telling(world, orders, reports):
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        devices = devices_for(machine, emulate_gpu=options.emulate_gpu, number=world.local_rank)
        target = open_checkpoint(options.target)
        keep_heap_small()
        link, pacer = link_of(machine, options.throttle, cuda=devices.cuda), disk_pacer(machine, options.throttle)
        reader = Reader(throttle=pacer, queue_depth=disk.queue_depth, block_bytes=disk.block_bytes)
        patience = Patience(machine, options.throttle)
        ways = Ways(NUMERICS[options.numerics])
        dismiss_team()
        # Once more inside of the engine, which waits for its threads, and these for other ranks.
        with (
            closing(reader),
            Engine(lanes_for(devices), worker_for(devices), patience=patience) as engine,
            _telling(world, orders, reports),
        ):
            serve(plan, target, engine, devices, link, reader, ways, world, orders, reports)
    orders.close()


@contextmanager
def _telling(world: World, orders: Orders, reports: Reports) -> Iterator[None]:
    """Let rank 0 tell what ends this rank, and stay until it has; where that is gone, rank 1 tells it."""
    try:
        yield
    except DismissedError:
        world.abort()
        raise SystemExit(SpecsimError.exit_status) from None
    except Exception as error:
        try:
            reports.say(Report(Kind.FAILED, str(error)), last=True)
            with suppress(DismissedError):
                while orders.next(_LEAVE_S) is not None:
                    pass
        except RankError as gone:
            if world.rank == 1:
                raise gone from None
        finally:
            world.abort()
        raise SystemExit(SpecsimError.exit_status) from None
