"""The rows of a pass from embedding to logits."""

from __future__ import annotations

import torch
from torch import Tensor

from executor.decoder import blocks
from executor.decoder.feedforward import finish
from executor.devices import CPU
from executor.passes import Pass
from executor.tasks.context import Context, visit
from specsim.schedule.graph import Task, TaskName


def lookup(c: Context, name: TaskName, task: Task) -> int | None:
    """The pass begins: its rows are packed, embedded beside the table, and brought to the main processor."""
    p = c.passes[visit(name)] = c.open_pass(name)
    if p.empty:
        return None
    c.enter("prefill" if name.phase == "prefill" else "decode")
    embedded = blocks.embed(c.embedding, p.ids)
    p.hidden, moved = up(c, embedded)
    return moved


def logits(c: Context, name: TaskName, task: Task) -> int | None:
    """The pass ends: the last layer's output is complete, and what the logits decide is committed."""
    p = c.passes.pop(visit(name))
    if not p.empty:
        settle(c, p, len(p.layers), p.rows)
    c.close_pass(name, p)  # an empty one too: its places may be taken again
    return None if p.empty else 0


def settle(c: Context, p: Pass, layer: int, rows: slice) -> None:
    """Before `layer` reads some rows: add the FFN output of the layer before it, from every processor that has one."""
    outputs = [added.rows[rows] for added in p.outputs.values() if added.layer == layer - 1]
    if outputs:
        p.hidden[rows] = finish(c.numerics, outputs, p.hidden[rows])


def up(c: Context, below: Tensor) -> tuple[Tensor, int]:
    """Rows in RAM, where the main processor reads them, and the bytes that this moved."""
    if c.devices.main == "cpu":
        return below, 0
    above = torch.empty_like(below, device=c.devices.gpu)
    return above, c.link.bring(above, below)


def down(c: Context, above: Tensor) -> tuple[Tensor, int]:
    """Rows of the GPU, in RAM."""
    below = torch.empty_like(above, device=CPU, pin_memory=c.devices.cuda)
    return below, c.link.take_back(below, above)
