"""transformers with accelerate: a layer's weights are copied when the layer is called, and dropped after it.

Known from the source of accelerate (`hooks.py`: AlignDevicesHook) and of SpecOffload's `benchmarks/baseline/acc.py`,
which keeps the first layer on the GPU and all others in pageable RAM: copies block the caller and nothing is fetched
ahead, so a pass takes copies and computation one after the other. The cache stays in VRAM and bounds the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from specsim.case import Case
from specsim.model import Model
from specsim.partition import head_bytes
from specsim.systems.layers import Pass, layer_bytes
from specsim.systems.policies import in_vram, largest, plain_job
from specsim.systems.system import Bytes, Job, Policy, System


def copies(model: Model) -> list[float]:
    """Bytes of each layer, and last of the head, that a pass copies: layer 0 is there already."""
    return [0.0, *[layer_bytes(model)] * (model.layers - 1), float(head_bytes(model))]


def lay(p: Pass, copied: Sequence[float] | None = None) -> None:
    """What is `copied` of a layer (see `copies`) is there before the layer computes."""
    sizes = copies(p.model) if copied is None else copied
    done: tuple[int, ...] = ()
    for layer in p.layers:
        if sizes[layer]:
            done = (p.load(layer, sizes[layer], pinned=False, after=done),)
        attended = p.attention(layer, traffic=p.repeated, after=[p.projections(layer, after=done)])
        done = (p.ffn(layer, after=[attended]),)
    p.head(after=[p.load_head(pinned=False, after=done)] if sizes[-1] else done)


def job(case: Case, policy: Policy) -> Job:
    return plain_job(case, policy, lay, lay)


def memory(case: Case, policy: Policy) -> Bytes:
    """The layer that stays, the one that visits, the head, the cache and the activations."""
    return in_vram(case, policy, 2 * layer_bytes(case.target) + head_bytes(case.target))


def choose(case: Case) -> Policy:
    """No search: its users raise the batch until VRAM is full."""
    return largest(case, memory)


SYSTEM = System("accelerate", "transformers + accelerate offload", choose, job, memory)
