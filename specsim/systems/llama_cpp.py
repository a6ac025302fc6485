"""llama.cpp with the experts on the CPU (`--cpu-moe`), with and without a draft model on the GPU.

Known from its source and issues (13241, 15346): attention and caches are on the GPU and experts in memory-mapped RAM.
Passes of fewer than 32 tokens compute them on the CPU where they lie; larger ones copy the experts that are asked for,
from pageable memory, and compute on the GPU. Nothing overlaps. A draft serves one sequence and keeps its cache.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from specsim.case import Case
from specsim.cost.shapes import decode_shape
from specsim.cost.work import Work
from specsim.partition import embedding_bytes, head_bytes, whole_bytes
from specsim.systems.drafting import kept_cache, rounds_of_one
from specsim.systems.layers import Pass, attention_bytes, cache_bytes, ffn_bytes
from specsim.systems.policies import fastest, in_vram, padded_shape, plain_job, simple_policy
from specsim.systems.system import Bytes, Job, Policy, Stage, System

#: from so many tokens on, experts are copied to the GPU
COPIED_FROM = 32


def lay(p: Pass, draft: tuple[Work, ...] = (), kept: int = 0) -> None:
    """The experts of the last `kept` layers are in VRAM (`--n-cpu-moe` of all layers but these)."""
    done: tuple[int, ...] = (p.draft(draft),) if draft else ()
    on_cpu = p.shape.tokens < COPIED_FROM
    for layer in p.layers:
        attended = p.attention(layer, after=[p.projections(layer, after=done)])
        if layer >= p.model.layers - kept:
            done = (p.ffn(layer, after=[attended]),)
        elif on_cpu:
            down = p.copy(layer, "act_out", "d2h", p.hidden_bytes, after=[attended])
            done = (p.copy(layer, "act_in", "h2d", p.hidden_bytes, after=[p.ffn(layer, "cpu", after=[down])]),)
        else:
            load = p.load(layer, p.touched * ffn_bytes(p.model), pinned=False, after=[attended])
            done = (p.ffn(layer, after=[load]),)
    p.head(after=done)


def job(case: Case, policy: Policy, kept: int = 0) -> Job:
    step = partial(lay, kept=kept)
    return plain_job(case, policy, step, step)


def drafted_job(case: Case, policy: Policy, kept: int = 0) -> Job:
    """One request: its prefill, then rounds."""
    window = case.target.sliding_window
    first = Stage("prefill", 1.0, partial(lay, kept=kept), (padded_shape(1, policy.padded, window),))
    rounds, contexts = rounds_of_one(case, policy)
    stages = [
        Stage(
            "decode",
            rounds / len(contexts),
            partial(lay, draft=kept_cache(case, policy, context), kept=kept),
            (decode_shape(1, policy.gamma + 1, context, window),),
        )
        for context in contexts
    ]
    return Job((first, *stages), float(case.workload.output_tokens), float(case.workload.output_tokens))


def memory(case: Case, policy: Policy, kept: int = 0) -> Bytes:
    """In VRAM all but the experts, and the cache; those of the `kept` layers and of a copied one; a draft with its
    cache. In RAM the experts of the other layers: what of the file is not used again need not stay there."""
    target, draft = case.target, case.draft if policy.gamma else None
    whole = target.layers * attention_bytes(target) + head_bytes(target) + embedding_bytes(target)
    whole += (kept + 1) * ffn_bytes(target)
    if draft is not None:
        whole += whole_bytes(draft) + cache_bytes(draft, policy.padded + case.workload.output_tokens)
    return {**in_vram(case, policy, whole), "ram": (target.layers - kept) * ffn_bytes(target)}


def choose(case: Case) -> Policy:
    """Parallel sequences (`-np`) by what is fastest; prompts are not padded."""
    policies = [replace(simple_policy(case, 2**i), padded=case.workload.prompt_tokens_mean) for i in range(9)]
    return fastest(case, job, memory, policies)


def choose_drafted(case: Case) -> Policy:
    """One sequence, the draft length by what is fastest."""
    one = replace(simple_policy(case, 1), padded=case.workload.prompt_tokens_mean)
    return fastest(case, drafted_job, memory, [replace(one, gamma=gamma, draft_batch=1) for gamma in (2, 4, 8, 16)])


SYSTEM = System("llama.cpp", "llama.cpp, experts on the CPU", choose, job, memory)
DRAFTED = System(
    "llama.cpp+draft", "llama.cpp, experts on the CPU, with a draft", choose_drafted, drafted_job, memory, True
)
