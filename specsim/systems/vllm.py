"""vLLM with CPU weight offload (`--cpu-offload-gb`): what does not fit VRAM is read over the link when it is needed.

Known from vLLM's documentation and source (`model_executor/models/utils.py`): offloaded parameters lie in pinned RAM
and are read in place over the link (UVA) or copied when their layer runs, either way on the compute stream, so nothing
is fetched ahead. Batching is continuous and prompts are packed, not padded; caches stay in VRAM.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from specsim.case import Case
from specsim.partition import head_bytes
from specsim.systems.layers import Pass, layer_bytes
from specsim.systems.policies import fastest, in_vram, plain_job, resident, simple_policy
from specsim.systems.system import Bytes, Job, Policy, System

#: share of VRAM that it uses by default
GPU_MEMORY_UTILIZATION = 0.9


def lay(p: Pass, share: float) -> None:
    done: tuple[int, ...] = ()
    for layer in p.layers:
        load = p.load(layer, (1.0 - share) * layer_bytes(p.model), after=done)
        done = (p.ffn(layer, after=[p.attention(layer, after=[p.projections(layer, after=[load])])]),)
    p.head(after=done)


def resident_share(case: Case, policy: Policy) -> float:
    """Share of the weights that stays in VRAM beside the cache."""
    less = (1.0 - GPU_MEMORY_UTILIZATION) * case.machine.vram_budget_bytes
    return resident(case, policy, head_bytes(case.target) + less, cache=True)


def job(case: Case, policy: Policy) -> Job:
    step = partial(lay, share=resident_share(case, policy))
    return plain_job(case, policy, step, step)


def memory(case: Case, policy: Policy) -> Bytes:
    weights = resident_share(case, policy) * case.target.weight_bytes
    return in_vram(case, policy, weights + head_bytes(case.target))


def choose(case: Case) -> Policy:
    """The batch (`--max-num-seqs`) at which weights and caches share VRAM best."""
    packed = [replace(simple_policy(case, 2**i), padded=case.workload.prompt_tokens_mean) for i in range(10)]
    return fastest(case, job, memory, packed)


SYSTEM = System("vllm", "vLLM with CPU weight offload", choose, job, memory)
