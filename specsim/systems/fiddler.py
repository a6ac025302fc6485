"""Fiddler: each expert that was asked for is computed where that is estimated to be cheaper, on the CPU or on the GPU.

Kamahori et al. 2024 (arXiv 2402.07033) and its source (`src/fiddler/mixtral.py`): attention and caches are on the GPU,
experts in pageable RAM. An expert costs 7 units per token on the CPU and 70 on the GPU, copy included, whatever the
machine; copies block, and CPU and GPU take turns. VRAM that is left holds experts in the original; the version that
SpecOffload compares with (`benchmarks/baseline/mixtral_greedy.py`) keeps none there.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from scipy.stats import binom

from specsim.case import Case
from specsim.partition import embedding_bytes, head_bytes
from specsim.systems.layers import Pass, attention_bytes, ffn_bytes
from specsim.systems.policies import in_vram, largest, plain_job
from specsim.systems.system import Bytes, Job, Policy, System

CPU_COST_PER_TOKEN = 7.0
GPU_COST = 70.0
#: CPU threads that it asks for, however many cores there are
THREADS = 16


def lay(p: Pass) -> None:
    """An expert's tokens are binomial over those of the pass: the fewest are computed on the CPU."""
    on_cpu, on_gpu, busy = shares(p)
    idle = max(1.0, p.case.machine.host.cores / THREADS)  # so many times longer than on all cores
    done: tuple[int, ...] = ()
    for layer in p.layers:
        done = (p.attention(layer, traffic=p.repeated, after=[p.projections(layer, after=done)]),)
        if on_gpu:
            load = p.load(layer, on_gpu * ffn_bytes(p.model), pinned=False, after=done)
            done = (p.ffn(layer, share=1 - busy, after=[load]),)
        if on_cpu:
            down = p.copy(layer, "act_out", "d2h", busy * p.hidden_bytes, after=done)
            computed = p.ffn(layer, "cpu", share=busy * idle, after=[down])
            done = (p.copy(layer, "act_in", "h2d", busy * p.hidden_bytes, after=[computed]),)
    p.head(after=done)


def shares(p: Pass) -> tuple[float, float, float]:
    """Shares of a layer's experts that the CPU and the GPU compute, and the CPU's share of the tokens."""
    ffn, tokens = p.model.ffn, round(p.shape.tokens)
    count = binom(tokens, ffn.top_k / ffn.experts)
    most = min(tokens, ceil(GPU_COST / CPU_COST_PER_TOKEN) - 1)  # tokens of an expert that the CPU still computes
    fewest = np.arange(1, most + 1)
    cpu, gpu = float(count.pmf(fewest).sum()), float(count.sf(most))
    return cpu, gpu, min(1.0, float((fewest * count.pmf(fewest)).sum() / count.mean()))


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
