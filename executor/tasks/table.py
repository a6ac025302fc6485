"""Which function does which task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from executor.tasks import attention, draft, feedforward, rows, stages, weights
from executor.tasks.context import Context
from executor.tasks.draft import DraftContext
from specsim.schedule.graph import Task, TaskName

TARGET: Final[dict[str, Callable[[Context, TaskName, Task], int | None]]] = {
    "lookup": rows.lookup,
    "load_attention": weights.fetch,
    "read_attention": weights.fetch,
    "load_ffn": weights.fetch,
    "read_ffn": weights.fetch,
    "kv_in": attention.kv_in,
    "attention": attention.attention,
    "kv_out": attention.kv_out,
    "qkv": attention.qkv,
    "qkv_out": attention.qkv_out,
    "heads_in": attention.heads_in,
    "output": attention.output,
    "hidden_out": attention.hidden_out,
    "hidden_in": attention.hidden_in,
    "ffn_out": feedforward.ffn_out,
    "ffn": feedforward.ffn,
    "ffn_in": feedforward.ffn_in,
    "send": stages.send,
    "logits": rows.logits,
}

DRAFT: Final[dict[str, Callable[[DraftContext, TaskName, Task], int | None]]] = {
    "load": draft.load,
    "prefill": draft.prefill,
    "kv_in": draft.kv_in,
    "forward": draft.forward,
    "kv_out": draft.kv_out,
}


def action(c: Context, drafts: DraftContext | None, name: TaskName, task: Task) -> Callable[[], int | None]:
    """What `task` does when its turn comes. Called once for each task, in the order of the graph."""
    if name.phase in ("draft", "transition"):
        assert drafts is not None, f"{task.name}: the plan has no draft"
        drafts.expect(name)
        return partial(DRAFT[name.op], drafts, name, task)
    return partial(TARGET[name.op], c, name, task)
