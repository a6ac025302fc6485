"""Fiddler: each expert that was asked for is computed where that is estimated to be cheaper, on the CPU or on the GPU.

Kamahori et al. 2024 (arXiv 2402.07033) and its source (`src/fiddler/mixtral.py`): attention and caches are on the GPU,
experts in pageable RAM. An expert costs 7 units per token on the CPU and 70 on the GPU, copy included, whatever the
machine; copies block, and CPU and GPU take turns. VRAM that is left holds experts in the original; the version that
SpecOffload compares with (`benchmarks/baseline/mixtral_greedy.py`) keeps none there.
"""

from __future__ import annotations

from specsim.case import Case
from specsim.partition import embedding_bytes, head_bytes
from specsim.systems.layers import Pass, attention_bytes, ffn_bytes
from specsim.systems.policies import in_vram, largest, plain_job
from specsim.systems.system import Bytes, Job, Policy, System

CPU_COST_PER_TOKEN = 7.0
GPU_COST = 70.0


def lay(p: Pass) -> None:
    """Tokens are spread evenly over experts, so all those of a layer go the same way."""
    per_expert = p.shape.tokens * p.model.ffn.top_k / p.model.ffn.experts
    on_cpu = CPU_COST_PER_TOKEN * per_expert < GPU_COST
    done: tuple[int, ...] = ()
    for layer in p.layers:
        done = (p.attention(layer, after=[p.projections(layer, after=done)]),)
        if on_cpu:
            down = p.copy(layer, "act_out", "d2h", p.hidden_bytes, after=done)
            done = (p.copy(layer, "act_in", "h2d", p.hidden_bytes, after=[p.ffn(layer, "cpu", after=[down])]),)
        else:
            load = p.load(layer, p.touched * ffn_bytes(p.model), pinned=False, after=done)
            done = (p.ffn(layer, after=[load]),)
    p.head(after=done)


def job(case: Case, policy: Policy) -> Job:
    return plain_job(case, policy, lay, lay)


def memory(case: Case, policy: Policy) -> Bytes:
    """All but the experts, a place for one of them, the cache and the activations."""
    target = case.target
    whole = target.layers * attention_bytes(target) + head_bytes(target) + embedding_bytes(target)
    return in_vram(case, policy, whole + ffn_bytes(target) / target.ffn.experts)


def choose(case: Case) -> Policy:
    """The largest batch whose cache fits."""
    return largest(case, memory)


SYSTEM = System("fiddler", "Fiddler", choose, job, memory)
