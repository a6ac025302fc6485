"""Bring a unit of weights into a slot of a ring: from the disk, from RAM, or on from a slot in RAM."""

from __future__ import annotations

from executor.homes import Key
from executor.tasks.context import Context, layer_of, visit
from specsim.schedule.graph import Task, TaskName


def fetch(c: Context, name: TaskName, task: Task) -> int | None:
    """All of a unit, or only the experts that its passes ask for. A visit with nothing left to do fetches nothing."""
    source_read = task.name.replace("/load_", "/read_")
    if not c.live(name):
        c.reads.pop(source_read, None)  # there was something to do when it was read
        return None
    assert task.slot is not None, f"{task.name} fills no slot"
    key = layer_of(name), None if name.op.endswith("attention") else name.part
    experts = _experts(c, name, key)
    if task.stream == "disk":
        layout = c.rings.read(task.slot, key, experts)
        if name.op.startswith("read_"):  # it only passes through RAM
            c.reads[task.name] = task.slot, layout
            return layout.unit.nbytes
    elif (read := c.reads.pop(source_read, None)) is not None:
        source, layout = read
        c.rings.load_on(task.slot, source, layout)
    else:
        layout = c.rings.load(task.slot, key, experts)
    visits = [visit(name, batch) for batch in name.batch]
    c.rings.arrived(visits, task.slot, key, layout, whole=experts is None)
    return layout.unit.nbytes


def _experts(c: Context, name: TaskName, key: Key) -> list[int] | None:
    """The experts that the router has chosen, of which a part brings its own; None for a whole unit."""
    layer, part = key
    policy = c.homes.decision.policy
    if part is None or policy.expert_fetch == "all" or name.phase == "prefill":
        return None
    if not c.arch.model.layer_ffn(layer).is_moe:
        return None
    chosen: set[int] = set()
    for batch in name.batch:
        routed = c.passes[visit(name, batch)].routed
        if routed is not None and routed.routing is not None:
            chosen.update(routed.routing.experts.flatten().tolist())
    return sorted(chosen)
