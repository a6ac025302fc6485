"""SpecExec: one sequence, a wide tree of guesses from a draft on the GPU, the target streamed through once per tree.

Svirschevski et al. 2024 (arXiv 2406.02532) and its source: each layer's weights lie in one pinned buffer and are
prefetched through several device buffers, the first ones while the draft still works; attention and both caches stay in
VRAM. How much oftener a tree is right than its best branch is not published: see `drafting.MISSES_FALL`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from specsim.case import Case
from specsim.cost.shapes import PassShape, decode_shape
from specsim.cost.work import Work
from specsim.partition import head_bytes, whole_bytes
from specsim.systems.drafting import kept_cache, rounds_of_one
from specsim.systems.layers import Pass, cache_bytes, layer_bytes
from specsim.systems.policies import fastest, in_vram, padded_shape, resident, simple_policy
from specsim.systems.system import Bytes, Job, Policy, Stage, System


def lay(p: Pass, share: float, draft: tuple[Work, ...] = ()) -> None:
    """Loads run two layers ahead."""
    drafted = [p.draft(draft)] if draft else []
    ends: list[int] = []
    for layer in p.layers:
        load = p.load(layer, (1.0 - share) * layer_bytes(p.model), after=ends[-2:-1])
        attended = p.attention(layer, after=[p.projections(layer, after=[load, *drafted])])
        ends.append(p.ffn(layer, after=[attended]))
    p.head(after=ends[-1:])


def _fixed(case: Case, policy: Policy) -> float:
    assert case.draft is not None
    cache = cache_bytes(case.draft, policy.padded + case.workload.output_tokens + policy.gamma * policy.width)
    return whole_bytes(case.draft) + cache + 2 * layer_bytes(case.target) + head_bytes(case.target)


def job(case: Case, policy: Policy) -> Job:
    window, share = case.target.sliding_window, resident(case, policy, _fixed(case, policy), cache=True)
    stages = [Stage("prefill", 1.0, partial(lay, share=share), (padded_shape(1, policy.padded, window),))]
    rounds, contexts = rounds_of_one(case, policy)
    for context in contexts:
        one, nodes = decode_shape(1, 1, context, window), policy.gamma * policy.width + 1
        tree = PassShape(1, nodes, nodes * one.attended, one.cached, nodes)
        whole = partial(lay, share=share, draft=kept_cache(case, policy, context))
        stages.append(Stage("decode", rounds / len(contexts), whole, (tree,)))
    return Job(tuple(stages), float(case.workload.output_tokens), float(case.workload.output_tokens))


def memory(case: Case, policy: Policy) -> Bytes:
    fixed = _fixed(case, policy)
    return in_vram(case, policy, fixed + resident(case, policy, fixed, cache=True) * case.target.weight_bytes)


def choose(case: Case) -> Policy:
    """Trees of up to 1024 guesses, the largest budget of the paper."""
    one = replace(simple_policy(case, 1), padded=case.workload.prompt_tokens_mean, draft_batch=1)
    trees = [replace(one, gamma=depth, width=width) for depth in (4, 8, 16) for width in (1, 8, 32, 64)]
    return fastest(case, job, memory, trees)


SYSTEM = System("specexec", "SpecExec", choose, job, memory, drafts=True)
