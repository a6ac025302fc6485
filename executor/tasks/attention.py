"""One layer's attention for one micro-batch, in each of the ways that a placement may ask for.

On the main processor, the cache beside it or visiting; the core on the CPU and the projections on the GPU; all of it
on the CPU. Each ends with the rows after the attention, what the FFN reads of them, and the router's choice.
"""

from __future__ import annotations

import math

from torch import Tensor

from executor.decoder import blocks
from executor.decoder.batch import Batch
from executor.decoder.cache import KvArena, Segment, shared_runs
from executor.decoder.rope import rotation
from executor.passes import Pass, Rows
from executor.tasks.context import Context, Visitor, layer_of, visit
from executor.tasks.rows import down, settle, up
from executor.weights import AttentionWeights
from specsim.schedule.graph import Task, TaskName


def attention(c: Context, name: TaskName, task: Task) -> int | None:
    """The task that computes with the cache, on whichever processor."""
    p, rows = c.micro(name)
    if rows.empty:
        return None
    layer = layer_of(name)
    place = p.layers[layer].attention
    if place.processor == c.devices.main:
        settle(c, p, layer, rows.rows)
        if task.slot is not None:  # nothing was cached, so nothing came in; the buffer is taken now
            kv_in(c, name, task)
        hidden = p.hidden[rows.rows]
        heads = _core(c, name, p, rows, *_project(c, name, p, rows, hidden))
        _leave(c, name, p, rows, _project_out(c, name, heads, hidden))
    elif place.projections != "cpu":
        q, k, v = p.between.pop(("qkv", name.micro))
        p.between["heads", name.micro] = _core(c, name, p, rows, q, k, v)
    else:
        hidden = p.between.pop(("hidden", name.micro))
        heads = _core(c, name, p, rows, *_project(c, name, p, rows, hidden))
        p.between["hidden", name.micro] = _project_out(c, name, heads, hidden)
    return 0


def kv_in(c: Context, name: TaskName, task: Task) -> int | None:
    """K and V that live in RAM come to a staging buffer, with room for the new positions."""
    p, rows = c.micro(name)
    if rows.empty:
        return None
    assert task.slot is not None, f"{task.name} fills no buffer"
    segments, homes = p.segments[rows.sequences], p.caches[rows.sequences]
    home = homes[0].arena.layers[layer_of(name)]
    places = sum(segment.end for segment in segments)
    shape = (2, home.shape[1], places, home.shape[3])
    arena = KvArena([c.staging[task.slot][: math.prod(shape)].view(shape)])
    staged, moved = [arena.take(segment.end) for segment in segments], 0
    for segment, cache, visiting in zip(segments, homes, staged, strict=True):
        for there, here in shared_runs(visiting, cache, 0, segment.start):
            moved += c.link.bring(arena.layers[0][:, :, there], home[:, :, here])
    c.visitors[visit(name), layer_of(name), name.micro] = Visitor(segments, homes, staged)
    return moved


def kv_out(c: Context, name: TaskName, task: Task) -> int | None:
    """The new positions go home. The pass itself may have ended meanwhile."""
    return send_home(c, (visit(name), layer_of(name), name.micro))


def send_home(c: Context, key: tuple[str, int, int | None]) -> int | None:
    """The visitors of a pass, in a layer and a micro-batch."""
    visitor = c.visitors.get(key)
    if visitor is None:
        return None
    moved = 0
    for segment, cache, visiting in zip(visitor.segments, visitor.homes, visitor.staged, strict=True):
        home, staged = cache.arena.layers[key[1]], visiting.arena.layers[0]
        for here, there in shared_runs(cache, visiting, segment.start, segment.end):
            moved += c.link.take_back(home[:, :, here], staged[:, :, there])
    del c.visitors[key]  # last, so that what failed can be done again
    return moved


def qkv(c: Context, name: TaskName, task: Task) -> int | None:
    p, rows = c.micro(name)
    if rows.empty:
        return None
    settle(c, p, layer_of(name), rows.rows)
    p.between["qkv", name.micro] = _project(c, name, p, rows, p.hidden[rows.rows])
    return 0


def qkv_out(c: Context, name: TaskName, task: Task) -> int | None:
    p, rows = c.micro(name)
    if rows.empty:
        return None
    copies = [down(c, above) for above in p.between[("qkv", name.micro)]]
    p.between["qkv", name.micro] = tuple(below for below, _ in copies)
    return sum(size for _, size in copies)


def heads_in(c: Context, name: TaskName, task: Task) -> int | None:
    p, rows = c.micro(name)
    return None if rows.empty else _bring(c, p, name.micro, "heads")


def output(c: Context, name: TaskName, task: Task) -> int | None:
    p, rows = c.micro(name)
    if rows.empty:
        return None
    heads = p.between.pop(("heads", name.micro))
    _leave(c, name, p, rows, _project_out(c, name, heads, p.hidden[rows.rows]))
    return 0


def hidden_out(c: Context, name: TaskName, task: Task) -> int | None:
    p, rows = c.micro(name)
    if rows.empty:
        return None
    settle(c, p, layer_of(name), rows.rows)
    p.between["hidden", name.micro], moved = down(c, p.hidden[rows.rows])
    return moved


def hidden_in(c: Context, name: TaskName, task: Task) -> int | None:
    p, rows = c.micro(name)
    if rows.empty:
        return None
    moved = _bring(c, p, name.micro, "hidden")
    _leave(c, name, p, rows, p.between.pop(("hidden", name.micro)))
    return moved


def _bring(c: Context, p: Pass, micro: int | None, what: str) -> int:
    p.between[what, micro], moved = up(c, p.between[what, micro])
    return moved


def _local(p: Pass, rows: Rows) -> list[Segment]:
    """The segments of a micro-batch, counted from its own first row."""
    first = rows.rows.start
    return [Segment(s.first - first, s.count, s.start) for s in p.segments[rows.sequences]]


def _weights(c: Context, name: TaskName) -> AttentionWeights:
    return c.rings.attention(visit(name), layer_of(name))


def _project(c: Context, name: TaskName, p: Pass, rows: Rows, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    key = name.micro, hidden.device
    if key not in p.rotations:
        positions = p.positions[rows.rows].to(hidden.device)
        p.rotations[key] = rotation(c.arch.rope, c.arch.model.head_dim, positions, hidden.dtype)
    return blocks.project_qkv(c.arch, c.numerics, _weights(c, name), hidden, p.rotations[key])


def _core(c: Context, name: TaskName, p: Pass, rows: Rows, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over K and V at home, or where they visit."""
    layer = layer_of(name)
    visitor = c.visitors.get((visit(name), layer, name.micro))
    caches = visitor.staged if visitor is not None else p.caches[rows.sequences]
    kv = caches[0].arena.layers[0 if visitor is not None else layer]
    # What visits is laid out alike in every layer, and what is at home is too.
    key = name.micro, q.device, visitor is not None
    if key not in p.batches:
        p.batches[key] = Batch(c.arch, c.numerics, _local(p, rows), caches, q.device)
    return blocks.attend(layer, q, k, v, p.batches[key], kv)


def _project_out(c: Context, name: TaskName, heads: Tensor, hidden: Tensor) -> Tensor:
    return blocks.project_out(c.arch, c.numerics, _weights(c, name), heads, hidden)


def _leave(c: Context, name: TaskName, p: Pass, rows: Rows, hidden: Tensor) -> None:
    """The rows are through the attention: normalise and route them for the FFN, on the main processor."""
    p.hidden[rows.rows] = hidden
    layer = layer_of(name)
    normed, routing = blocks.route(c.arch, c.numerics, c.homes.routers[layer] or _weights(c, name), hidden)
    p.put(rows.rows, normed, routing)
