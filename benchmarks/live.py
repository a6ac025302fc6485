"""Live tensor bytes while a job runs: what it stores, and every temporary tensor of every worker thread.

Each operation that torch dispatches is looked at in the thread that runs it: storages that it makes are alive until
nobody holds them. What a kernel takes and gives back within one operation is not seen, nor what malloc rounds up; the
process's own peak, which `specsim run` shows beside it, has both.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from executor import lowering
from executor.memory import WORKSPACES, Ledger
from executor.taskruns import Action

#: entered in the ledger and made within a task: seen as tensors, so the ledger's entry is not counted again
SEEN = "draft kv"


class LiveBytes:
    """`peaks` by phase: the most bytes that were alive, stores and temporaries, and how much of it was temporary."""

    def __init__(self) -> None:
        self.ledger: Ledger | None = None
        self.peaks: dict[str, tuple[int, int]] = {}
        self._alive: dict[int, int] = {}
        self._lock = threading.RLock()  # a storage may die while another is counted, in the same thread

    def made(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        with self._lock:
            if key in self._alive or self.ledger is None:
                return
            self._alive[key] = size
            weakref.finalize(storage, self._gone, key).atexit = False
            temporary = sum(self._alive.values()) - self.ledger.items.get(("ram", SEEN), 0)
            stored = self.ledger.used("ram") - self.ledger.items.get(("ram", WORKSPACES), 0)
            phase = self.ledger.phase
            self.peaks[phase] = max(self.peaks.get(phase, (0, 0)), (stored + temporary, temporary))

    def _gone(self, key: int) -> None:
        with self._lock:
            self._alive.pop(key, None)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at all tasks that are submitted meanwhile."""

        def watched(*args: Any) -> Action:
            return partial(self._run, make(*args))

        make = lowering.action
        with mock.patch.object(lowering, "action", watched):
            yield

    def here(self) -> TorchDispatchMode:
        """Look at what this thread does within."""
        return _Watch(self)

    def _run(self, action: Callable[[], int | None]) -> int | None:
        with self.here():
            return action()


class _Watch(TorchDispatchMode):
    def __init__(self, live: LiveBytes) -> None:
        super().__init__()
        self.live = live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(x) for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and _storage(tensor) not in given and tensor.layout == torch.strided:
                self.live.made(tensor.untyped_storage())
        return out


def _storage(tensor: torch.Tensor) -> int:
    """Which storage a tensor has: views of stored ones are no tensors of their own."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)
