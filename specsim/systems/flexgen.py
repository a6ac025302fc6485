"""FlexGen: a block of several GPU batches shares every load of a layer's weights; caches stay in RAM.

Sheng et al. 2023 (arXiv 2303.06865, algorithm 1): the zig-zag schedule goes through all batches of a block before the
next layer, loads the next layer meanwhile, and lets the CPU attend over caches in RAM. In its source
(`flexllmgen/flex_llm_gen.py`) every (layer, batch) ends in a synchronisation, and the next layer is loaded while the
first batch computes only, so the other batches' work is not hidden; caches are converted to fp32 each time they are
attended over. Weights that fit stay in VRAM.
"""

from __future__ import annotations

from functools import partial

from specsim.case import Case
from specsim.cost import work as cost
from specsim.partition import head_bytes
from specsim.systems.layers import Pass, layer_bytes
from specsim.systems.policies import fastest, in_vram, plain_job, resident, simple_policy
from specsim.systems.system import Bytes, Job, Policy, System

#: bytes moved per byte of a cache that is converted to fp32 before the CPU attends: read, written twice as long, read
UPCAST = 5.0


def lay_prefill(p: Pass, blocks: int, share: float) -> None:
    """Attention on the GPU; each batch's new cache goes to RAM."""
    _lay(p, blocks, share, prefill=True)


def lay_step(p: Pass, blocks: int, share: float) -> None:
    """Attention on the CPU, beside the cache; only projections and FFN are the GPU's."""
    _lay(p, blocks, share, prefill=False)


def _lay(p: Pass, blocks: int, share: float, *, prefill: bool) -> None:
    streamed = (1.0 - share) * layer_bytes(p.model)
    load, done = p.load(0, streamed), tuple[int, ...]()
    for layer in p.layers:
        for batch in range(blocks):
            ready = (load, *done)
            ahead = p.load(layer + 1, streamed, after=ready) if batch == 0 and layer + 1 < p.model.layers else load
            projected = p.projections(layer, after=ready)
            if prefill:
                attended = p.attention(layer, after=[projected])
                kv = cost.kv_bytes(p.model, p.shape.tokens)
                stored = [p.copy(layer, "kv_out", "d2h", kv, after=[attended])]
            else:
                down = p.copy(layer, "act_out", "d2h", p.qkv_bytes, after=[projected])
                core = p.attention(layer, "cpu", traffic=UPCAST, after=[down])
                attended = p.copy(layer, "act_in", "h2d.act", p.hidden_bytes, after=[core])
                stored = []
            synced = (p.ffn(layer, after=[attended]), *stored)
            done = (*synced, ahead) if batch == 0 else synced
        load = ahead
    for _ in range(blocks):
        done = (p.head(after=done),)


def _buffers(case: Case) -> float:
    return layer_bytes(case.target) + head_bytes(case.target)


def job(case: Case, policy: Policy) -> Job:
    share = resident(case, policy, _buffers(case))
    prefill, step = (partial(lay, blocks=policy.blocks, share=share) for lay in (lay_prefill, lay_step))
    return plain_job(case, policy, prefill, step)


def memory(case: Case, policy: Policy) -> Bytes:
    share = resident(case, policy, _buffers(case))
    return in_vram(case, policy, share * case.target.weight_bytes + _buffers(case), cache=False)


def choose(case: Case) -> Policy:
    """Its search, with our simulator in place of its linear program: batches of powers of two, blocks of up to 8."""
    sizes = [2**i for i in range(11)]
    policies = [simple_policy(case, size, blocks) for size in sizes for blocks in (1, 2, 4, 8)]
    return fastest(case, job, memory, policies)


SYSTEM = System("flexgen", "FlexGen", choose, job, memory)
