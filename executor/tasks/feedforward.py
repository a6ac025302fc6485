"""The parts of a layer's FFN, on whichever processor each is placed; their outputs meet before the next layer."""

from __future__ import annotations

from torch import Tensor

from executor.decoder.feedforward import accumulator, dispatch, feed_forward
from executor.devices import CPU
from executor.passes import Added, Pass, Routed
from executor.tasks.context import Context, layer_of, visit
from executor.tasks.rows import down, up
from specsim.positions import chunk_rows
from specsim.schedule.graph import Task, TaskName


def ffn(c: Context, name: TaskName, task: Task) -> int | None:
    """One part: adds what it contributes to its processor's output of the layer."""
    p = c.passes[visit(name)]
    if p.empty:
        return None
    layer, processor = layer_of(name), task.stream
    assert name.part is not None
    part = c.rings.part(visit(name), layer, name.part)
    rows = p.routed if processor == c.devices.main else p.between["below", None]
    assert rows is not None
    normed = rows.normed
    added = p.outputs.get(processor)
    if added is None or added.layer != layer:
        into = accumulator(c.arch, c.numerics, layer, p.rows.stop, normed.device)
        added = p.outputs[processor] = Added(layer, dispatch(c.arch, layer, rows.routing), into)
        p.between.pop(("inner", None), None)
    if part:  # routed fetching may leave a part without experts
        most = int(chunk_rows(c.arch.model.layer_ffn(layer), c.homes.parts[layer], c.chunk_tokens))
        inner = _inner(c, p, layer, normed)
        feed_forward(c.numerics, part, normed, added.sent, added.rows, inner, most_rows=max(1, most))
    return 0


def _inner(c: Context, p: Pass, layer: int, normed: Tensor) -> Tensor | None:
    """What gate, up and down of a large dense FFN hand on, [T, f]; None where the FFN is not cut in these."""
    ffn_shape = c.arch.model.layer_ffn(layer)
    if ffn_shape.is_moe or c.homes.parts[layer] == 1:
        return None
    inner = p.between.get(("inner", None))
    if inner is None:
        inner = p.between["inner", None] = normed.new_empty(p.rows.stop, ffn_shape.width)
    return inner


def ffn_out(c: Context, name: TaskName, task: Task) -> int | None:
    """What the FFN reads goes to the CPU, with the router's choice."""
    p = c.passes[visit(name)]
    if p.empty:
        return None
    assert p.routed is not None
    normed, moved = down(c, p.routed.normed)
    routing = p.routed.routing
    p.between["below", None] = Routed(normed, routing.to(CPU) if routing else None)
    return moved


def ffn_in(c: Context, name: TaskName, task: Task) -> int | None:
    """What the CPU's parts have added up comes to the GPU."""
    p = c.passes[visit(name)]
    if p.empty:
        return None
    added = p.outputs["cpu"]
    added.rows, moved = up(c, added.rows)
    added.sent = None  # all parts of the layer have read it
    return moved
