"""DeepSpeed ZeRO-Inference: all weights in pinned RAM, the next layer fetched while this one computes.

Aminabadi et al. 2022 (arXiv 2207.00032, section VI): weights are streamed layer by layer with prefetching, and VRAM is
left to a large batch with its cache. SpecOffload's `benchmarks/baseline/ds.py` runs it as ZeRO stage 3 with
`offload_param: cpu, pin_memory`; gathering tensor by tensor, it reaches less of the link than one large copy.
"""

from __future__ import annotations

from specsim.case import Case
from specsim.partition import head_bytes
from specsim.systems.layers import Pass, layer_bytes
from specsim.systems.policies import in_vram, largest, plain_job
from specsim.systems.system import Bytes, Job, Policy, System


def lay(p: Pass) -> None:
    """Two buffers: the load of a layer waits until the layer before the last one has computed."""
    ends: list[int] = []
    for layer in p.layers:
        load = p.load(layer, layer_bytes(p.model), after=ends[-2:-1])
        attended = p.attention(layer, traffic=p.repeated, after=[p.projections(layer, after=[load])])
        ends.append(p.ffn(layer, after=[attended]))
    p.head(after=[p.load_head(), ends[-1]])


def job(case: Case, policy: Policy) -> Job:
    return plain_job(case, policy, lay, lay)


def memory(case: Case, policy: Policy) -> Bytes:
    """Two layers' buffers, the head, the cache and the activations."""
    return in_vram(case, policy, 2 * layer_bytes(case.target) + head_bytes(case.target))


def choose(case: Case) -> Policy:
    """The largest batch whose cache fits, as the paper advises for throughput."""
    return largest(case, memory)


SYSTEM = System("deepspeed", "DeepSpeed ZeRO-Inference", choose, job, memory)
