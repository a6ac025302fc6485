"""A service from a plan file's content and checkpoint directories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec

from executor.opening import Opened, memory_told
from executor.process import keep_heap_small
from executor.service.service import Service


@contextmanager
def open_service(opened: Opened, queue: int, *, keep: bool = True) -> Iterator[Service]:
    """Load, and serve until the end. A newcomer may join any round, so no round is lowered as a tail of few rows, whose
    placement has no room for one. Raises InputError as loading does."""
    plan = opened.plan
    opened = replace(opened, plan=replace(plan, decision=msgspec.structs.replace(plan.decision, tails=())))
    keep_heap_small()
    opened.check_room()
    with memory_told(), opened.load(spans=0) as job, Service(job, queue, keep=keep) as service:
        yield service
