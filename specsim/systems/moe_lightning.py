"""MoE-Lightning: pages of weights, the CPU's attention and the GPU's experts of different micro-batches all overlap.

Cao et al. 2024 (arXiv 2411.11217, CGOPipe) and its source (`fastmoe/backend/optimizer.py`): the next layer's weights
come in pages while this one computes, and while the CPU attends for one micro-batch the GPU runs the experts of the one
before and projects the next. Attention is always on the CPU in decode; weights that fit stay in VRAM.
"""

from __future__ import annotations

from functools import partial

from specsim.case import Case
from specsim.cost import work as cost
from specsim.partition import head_bytes
from specsim.systems.layers import Pass, layer_bytes
from specsim.systems.policies import fastest, in_vram, plain_job, resident, simple_policy
from specsim.systems.system import Bytes, Job, Policy, System


def lay(p: Pass, micro_batches: int, share: float, attends: str) -> None:
    """Tasks in the order of CGOPipe: a micro-batch's experts, then its projections of the next layer."""
    size = (1.0 - share) * layer_bytes(p.model)
    loads, ends = [p.load(0, size)], [(0,)] * micro_batches
    projected = [p.projections(0, after=loads) for _ in range(micro_batches)]
    for layer in p.layers:
        if layer + 1 < p.model.layers:
            loads.append(p.load(layer + 1, size, after=ends[-1]))
        attended = [_attend(p, layer, attends, before) for before in projected]
        for i, ready in enumerate(attended):
            ends[i] = (p.ffn(layer, after=[ready]),)
            if layer + 1 < p.model.layers:
                projected[i] = p.projections(layer + 1, after=[loads[-1], *ends[i]])
    for done in ends:
        p.head(after=done)


def _attend(p: Pass, layer: int, on: str, before: int) -> int:
    if on == "gpu":
        attended = p.attention(layer, after=[before])
        p.copy(layer, "kv_out", "d2h", cost.kv_bytes(p.model, p.shape.tokens), after=[attended])
        return attended
    core = p.attention(layer, "cpu", after=[p.copy(layer, "act_out", "d2h", p.qkv_bytes, after=[before])])
    return p.copy(layer, "act_in", "h2d.act", p.hidden_bytes, after=[core])


def _buffers(case: Case) -> float:
    return 2 * layer_bytes(case.target) + head_bytes(case.target)


def job(case: Case, policy: Policy) -> Job:
    whole = partial(lay, micro_batches=policy.blocks, share=resident(case, policy, _buffers(case)))
    return plain_job(case, policy, partial(whole, attends="gpu"), partial(whole, attends="cpu"))


def memory(case: Case, policy: Policy) -> Bytes:
    weights = resident(case, policy, _buffers(case)) * case.target.weight_bytes
    return in_vram(case, policy, weights + _buffers(case), cache=False)


def choose(case: Case) -> Policy:
    """Its search over micro-batches, with our simulator in place of its linear program."""
    policies = [simple_policy(case, 2**i, blocks) for i in range(10) for blocks in (2, 4, 8)]
    return fastest(case, job, memory, policies)


SYSTEM = System("moe-lightning", "MoE-Lightning", choose, job, memory)
