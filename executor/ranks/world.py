"""The processes of a run and the ways between them, all of it torch.distributed's: gloo, and NCCL for rows on GPUs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from executor.devices import CPU
from specsim.errors import SpecsimError

#: until all are there: each has imported its libraries by then, and nothing else
JOIN_TIMEOUT: Final = timedelta(minutes=2)
#: a stage waits for rows as long as the others compute; who is gone is noticed by its closed connection
PATIENCE: Final = timedelta(days=365)
#: for what ends in order
_LEAVE_S: Final = 2.0
#: no message ever has this tag
_NO_TAG: Final = 1


class RankError(SpecsimError):
    """A rank that ended before the run did, or an error that another rank reports."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What torchrun told this process: its rank of `ranks`, and its number of the `local_ranks` on this machine."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ) -> Launch:
        """A process that torchrun did not start is the only one."""
        if "TORCHELASTIC_RUN_ID" not in environment:
            return cls(0, 1, 0, 1)
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return cls(*(int(environment[name]) for name in names))


@dataclass(frozen=True, slots=True)
class Channel:
    """Messages to and from rank `peer`, in order, by one thread for each direction. Raises RankError where the peer is
    gone, or the channel was closed meanwhile."""

    group: dist.ProcessGroup
    peer: int

    def send(self, tensor: Tensor) -> int:
        """Its bytes."""
        try:
            dist.send(tensor, dst=self.peer, group=self.group)
        except (RuntimeError, ValueError) as error:
            raise self._gone from error
        return tensor.nbytes

    def receive(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device = CPU) -> Tensor:
        """What the peer sends next, which has to be of just this shape and type."""
        tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
        try:
            dist.recv(tensor, src=self.peer, group=self.group)
        except (RuntimeError, ValueError) as error:
            raise self._gone from error
        return tensor

    def abort(self) -> None:
        """End all that waits here, on both sides. gloo knows no other way than a wait that times out."""
        with suppress(RuntimeError, ValueError):
            work = dist.irecv(torch.empty(1), src=self.peer, group=self.group, tag=_NO_TAG)
            assert work is not None, "this rank is in the group"
            work.wait(timedelta(milliseconds=1))
        with suppress(RuntimeError, ValueError):
            self.group.abort()

    @property
    def _gone(self) -> RankError:
        return RankError(f"rank {self.peer} is gone: its connection was closed")


class World:
    """Joins the ranks of a launch; as a context manager it leaves them again.

    `desks` are rank 0's channels to all others, or another rank's to it: for what is to be done, and for reports.
    `back` and `on` are those to the stages before and after, for passes; the last stage's `on` leads to rank 0.
    Raises RankError where not all come.
    """

    def __init__(self, launch: Launch) -> None:
        self.rank, self.ranks = launch.rank, launch.ranks
        self.local_rank, self.local_ranks = launch.local_rank, launch.local_ranks
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        try:
            dist.init_process_group(backend, timeout=JOIN_TIMEOUT)
        except (RuntimeError, ValueError) as error:
            raise RankError(f"the {launch.ranks} ranks do not come together: {error}") from None
        # All ranks make all groups, in the same order, and each has a group of its own: no pass waits behind another
        # link's.
        desks = {(0, k): self._group(0, k) for k in range(1, self.ranks)}
        links = {(k, (k + 1) % self.ranks): self._group(k, (k + 1) % self.ranks) for k in range(self.ranks)}
        before, after = (self.rank - 1) % self.ranks, (self.rank + 1) % self.ranks
        self.back = Channel(links[before, self.rank], before)
        self.on = Channel(links[self.rank, after], after)
        self.desks = {
            (b if self.rank == a else a): Channel(group, b if self.rank == a else a)
            for (a, b), group in desks.items()
            if self.rank in (a, b)
        }

    @staticmethod
    def _group(a: int, b: int) -> dist.ProcessGroup:
        group: dist.ProcessGroup = dist.new_group(sorted((a, b)), timeout=PATIENCE)
        return group

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None:  # else the process ends, and a connection to a rank that is gone may not end in order
            dist.destroy_process_group()

    def abort(self, last: Callable[[Channel], None] = lambda desk: None) -> None:
        """End all that waits for other ranks, and what of theirs waits for this one; before, each desk hears the `last`
        word. No channel waits for another's, and none is waited for long: its peer may be gone."""

        def leave(desk: Channel) -> None:
            with suppress(RankError):
                last(desk)
            desk.abort()

        ends: list[Callable[[], None]] = [
            self.back.abort,
            self.on.abort,
            *(partial(leave, desk) for desk in self.desks.values()),
        ]
        threads = [threading.Thread(target=end, name="specsim leave", daemon=True) for end in ends]
        for thread in threads:
            thread.start()
        until = time.monotonic() + _LEAVE_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
