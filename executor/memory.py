"""Budgets that are kept: every lasting allocation is entered in a ledger, by item, and each memory has its peak."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from specsim.errors import InputError
from specsim.units import show

#: temporary tensors, which are counted as the plan counts them
WORKSPACES: Final = "workspaces"


class Ledger:
    """Bytes in use by memory ("vram", "ram") and item. Thread-safe. `workspaces` has what the temporary tensors of each
    phase take of each memory: entering a phase gives back what the one before it took, and calls `on_phase`.

    Raises InputError, before anything is allocated, for what would exceed a budget.
    """

    def __init__(
        self,
        budgets: Mapping[str, float],
        workspaces: Mapping[str, Mapping[str, int]] | None = None,
        on_phase: Callable[[], None] = lambda: None,
    ) -> None:
        self.budgets = dict(budgets)
        self.workspaces, self.on_phase = workspaces or {}, on_phase
        self.phase = ""
        self.items: dict[tuple[str, str], int] = {}
        self.peaks: dict[str, int] = dict.fromkeys(self.budgets, 0)
        self._lock = threading.RLock()

    def used(self, memory: str) -> int:
        return sum(size for (where, _), size in self.items.items() if where == memory)

    def enter(self, phase: str) -> None:
        """Begin a phase: "prefill", "transition" or "decode". Entering it again changes nothing."""
        with self._lock:
            if phase == self.phase:
                return
            self.phase = phase
            self.on_phase()
            for memory in self.budgets:
                self.give_back(memory, WORKSPACES, self.items.get((memory, WORKSPACES), 0))
                self.take(memory, WORKSPACES, self.workspaces.get(phase, {}).get(memory, 0))

    def fits(self, phase: str) -> bool:
        """Whether there is room for the temporary tensors of a phase beside all else that is in use now."""
        wanted = self.workspaces.get(phase, {})
        with self._lock:
            now = {memory: self.items.get((memory, WORKSPACES), 0) for memory in self.budgets}
            return all(self.used(m) - now[m] + wanted.get(m, 0) <= budget for m, budget in self.budgets.items())

    def take(self, memory: str, item: str, byte_count: int) -> None:
        with self._lock:
            used = self.used(memory) + byte_count
            if used > self.budgets[memory]:
                budget = show(self.budgets[memory], "bytes")
                raise InputError(
                    f"{item} of {show(byte_count, 'bytes')} exceeds the budget of {budget}, "
                    f"{show(used - byte_count, 'bytes')} of it in use",
                    where=memory,
                    hint=f"plan again for this machine, or with a larger --{memory}",
                )
            self.items[memory, item] = self.items.get((memory, item), 0) + byte_count
            self.peaks[memory] = max(self.peaks[memory], used)

    @contextmanager
    def taking(self, memory: str, item: str, byte_count: int) -> Iterator[None]:
        """Take what is allocated within; where that fails it is given back."""
        self.take(memory, item, byte_count)
        try:
            yield
        except BaseException:
            self.give_back(memory, item, byte_count)
            raise

    def give_back(self, memory: str, item: str, byte_count: int) -> None:
        with self._lock:
            self.items[memory, item] = self.items.get((memory, item), 0) - byte_count
