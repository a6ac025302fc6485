"""transformers with accelerate: a layer's weights are copied when the layer is called, and dropped after it.

Known from the source of accelerate (`hooks.py`: AlignDevicesHook) and of SpecOffload's `benchmarks/baseline/acc.py`,
which keeps the first layer on the GPU and all others in pageable RAM: copies block the caller and nothing is fetched
ahead, so a pass takes copies and computation one after the other. The cache stays in VRAM and bounds the batch.
"""

from __future__ import annotations

from specsim.case import Case
from specsim.partition import head_bytes
from specsim.systems.layers import Pass, layer_bytes
from specsim.systems.policies import in_vram, largest, plain_job
from specsim.systems.system import Bytes, Job, Policy, System


def lay(p: Pass) -> None:
    """Layer 0 is there already; every other one is copied, then computed."""
    done: tuple[int, ...] = ()
    for layer in p.layers:
        if layer:
            done = (p.load(layer, layer_bytes(p.model), pinned=False, after=done),)
        attended = p.attention(layer, traffic=p.repeated, after=[p.projections(layer, after=done)])
        done = (p.ffn(layer, after=[attended]),)
    p.head(after=[p.load_head(pinned=False, after=done)])


def job(case: Case, policy: Policy) -> Job:
    return plain_job(case, policy, lay, lay)


def memory(case: Case, policy: Policy) -> Bytes:
    """The layer that stays, the one that visits, the head, the cache and the activations."""
    return in_vram(case, policy, 2 * layer_bytes(case.target) + head_bytes(case.target))


def choose(case: Case) -> Policy:
    """No search: its users raise the batch until VRAM is full."""
    return largest(case, memory)


SYSTEM = System("accelerate", "transformers + accelerate offload", choose, job, memory)
