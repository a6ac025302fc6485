"""A pass goes on from one pipeline stage to the next, and from the last one home.

Both ends have the task: one hands on, the other waits for what comes."""

from __future__ import annotations

from executor.ranks.part import OUT
from executor.ranks.wire import receive_rows, send_pass, send_rows
from executor.tasks.context import Context, visit
from executor.tasks.rows import settle
from specsim.schedule.graph import Task, TaskName


def send(c: Context, name: TaskName, task: Task) -> int | None:
    return _hand_on(c, name) if task.stream == OUT else _take_over(c, name)


def _hand_on(c: Context, name: TaskName) -> int | None:
    """The rows as the stage's last layer leaves them. The stage that commits keeps the pass, others are done with
    it."""
    stage = c.stage
    assert stage.on is not None
    p = c.passes[visit(name)] if stage.first else c.passes.pop(visit(name))
    if not p.empty:
        settle(c, p, stage.layers.stop, p.rows)
    return send_rows(stage.on, p) if stage.last else send_pass(stage.on, p)


def _take_over(c: Context, name: TaskName) -> int | None:
    """The rows as the stage before has left them: of a new pass, or home again for their logits."""
    stage = c.stage
    assert stage.back is not None
    device = c.devices.of(c.devices.main)
    if stage.first:
        hidden = receive_rows(stage.back, c.arch, device)
        p = c.passes[visit(name)]  # which had to set out before its rows could come home
    else:
        p = c.passes[visit(name)] = c.open_pass(name)
        if not p.empty:
            c.enter("prefill" if name.phase == "prefill" else "decode")
        hidden = receive_rows(stage.back, c.arch, device)
    p.hidden = hidden
    return None if p.empty else hidden.nbytes
