"""SpecOffload as published: while the target verifies one batch, the draft on the GPU proposes for the other.

Known from arXiv 2505.10259 and its source. In a verify pass (`modeling_mixtral.py`) attention runs on the CPU with its
projections, over caches that are concatenated and repeated for every query head; all experts of the layer are copied
meanwhile, half of them from pageable memory, and computed when both are done. Then every cache is shifted to where its
sequence's accepted tokens end. Prefill takes `prefill_batch` prompts per
sweep and hides no copy. The draft (`candidate_generator.py`) keeps no cache: each round it reads the whole padded
context again, `draft_batch` sequences at a time. A batch goes on until its slowest sequence has all its tokens, and
`examples/run.py` counts what the others generate meanwhile.
"""

from __future__ import annotations

from functools import partial
from math import ceil

from specsim.acceptance import expected_tokens
from specsim.case import Case
from specsim.cost import work as cost
from specsim.cost.shapes import decode_shape
from specsim.cost.work import Work
from specsim.memory import workspaces
from specsim.partition import head_bytes, whole_bytes
from specsim.systems.layers import Pass, attention_bytes, cache_bytes, ffn_bytes, layer_bytes
from specsim.systems.policies import fastest, in_vram, padded_shape
from specsim.systems.prompts import longest
from specsim.systems.rounds import slowest_rounds
from specsim.systems.system import NODES, Bytes, Job, Policy, Stage, System

#: batches in flight
BATCHES = 2
#: bytes moved per byte of a cache that is shifted: two clones, each read and written
SHIFT_TRAFFIC = 4.0


def policy(case: Case, batch: float, *, prefill_batch: float, gamma: int, draft_batch: int) -> Policy:
    """Both batches in flight are padded alike."""
    return Policy(batch, longest(case.workload, BATCHES * batch), 1, prefill_batch, gamma, draft_batch)


def lay_prefill(p: Pass) -> None:
    """Copy and compute in turn; the new cache goes to RAM before the next layer."""
    done: tuple[int, ...] = ()
    for layer in p.layers:
        if not p.model.ffn.is_moe:
            done = (p.load(layer, attention_bytes(p.model), pinned=False, after=done),)
        attended = p.attention(layer, after=[p.projections(layer, after=done)])
        stored = p.copy(layer, "kv_out", "d2h", cost.kv_bytes(p.model, p.shape.tokens), pinned=False, after=[attended])
        done = (p.ffn(layer, after=[p.load(layer, ffn_bytes(p.model), pinned=False, after=[stored])]),)
    p.head(after=done)


def lay_slot(p: Pass, works: tuple[Work, ...]) -> None:
    """Verify one batch while the draft (`works`) proposes for the other; the slot ends with the later of the two.

    For dense targets, whose version is not public, projections are taken to run on the GPU, from weights that come
    over the link before those of the FFN: on the CPU they would take longer than all of the published time.
    """
    p.draft(works)
    done: tuple[int, ...] = ()
    for layer in p.layers:
        if p.model.ffn.is_moe:
            projected = p.projections(layer, "cpu", after=done)
        else:
            come = p.load(layer, attention_bytes(p.model), pinned=False, after=done)
            projected = p.copy(layer, "act_out", "d2h", p.qkv_bytes, after=[p.projections(layer, after=[come])])
        load = p.load(layer, ffn_bytes(p.model), pinned=False, after=done)
        attended = p.attention(layer, "cpu", traffic=p.repeated, after=[projected])
        up = p.copy(layer, "act_in", "h2d.act", p.hidden_bytes, after=[attended])
        done = (p.ffn(layer, after=[load, up]),)
    p.shift(SHIFT_TRAFFIC * p.model.layers * cost.kv_bytes(p.model, p.shape.cached), after=[p.head(after=done)])


def draft_works(case: Case, policy: Policy, context: float) -> tuple[Work, ...]:
    """A round's drafting for one batch: each group reads its context, then makes a step per further candidate."""
    assert case.draft is not None, "SpecOffload needs a draft"
    groups = ceil(policy.batch / policy.draft_batch)
    rows = policy.batch / groups
    window = case.draft.sliding_window
    shapes = [padded_shape(rows, context, window)]
    shapes += [decode_shape(rows, 1, context + step, window) for step in range(1, policy.gamma)]
    works = [work for shape in shapes for work in cost.whole_pass(case.draft, shape)]
    return tuple(cost.repeat(work, groups) for work in works)


def job(case: Case, policy: Policy) -> Job:
    """Two batches: all prefill sweeps, the draft's weights, and two slots per round."""
    assert case.acceptance is not None, "SpecOffload needs an acceptance"
    tokens, gamma, window = case.workload.output_tokens, policy.gamma, case.target.sliding_window
    per_round = expected_tokens(case.acceptance, gamma)
    rounds = slowest_rounds(case.acceptance, gamma, policy.batch, tokens - 1)
    slots = []
    for node in NODES:
        context = policy.padded + 1 + node * rounds * per_round
        shape = decode_shape(policy.batch, gamma + 1, context, window)
        lay = partial(lay_slot, works=draft_works(case, policy, context))
        slots.append(Stage("decode", BATCHES * rounds / len(NODES), lay, (shape,)))
    stages = (*_sweeps(policy, window), Stage("prefill", 1.0, _lay_draft, slots[0].shapes), *slots)
    return Job(stages, BATCHES * policy.batch * (1 + rounds * per_round), float(BATCHES * policy.batch * tokens))


def _sweeps(policy: Policy, window: int | None) -> list[Stage]:
    full, rest = divmod(policy.batch, policy.prefill_batch)
    counts = [(BATCHES * full, policy.prefill_batch), (BATCHES, rest)]
    return [
        Stage("prefill", times, lay_prefill, (padded_shape(rows, policy.padded, window),))
        for times, rows in counts
        if times and rows
    ]


def _lay_draft(p: Pass) -> None:
    """The draft's weights come to the GPU once both batches have been read."""
    assert p.case.draft is not None
    p.load(0, whole_bytes(p.case.draft), pinned=False)


def memory(case: Case, policy: Policy) -> Bytes:
    """The larger of prefill (a layer, a MoE's whole attention, a sweep) and decode (a layer, the draft, a group)."""
    assert case.draft is not None
    attention = attention_bytes(case.target) * (case.target.layers if case.target.ffn.is_moe else 1)
    prefill = in_vram(case, policy, attention + ffn_bytes(case.target) + head_bytes(case.target), cache=False)
    length = policy.padded + case.workload.output_tokens
    group = policy.draft_batch * length
    drafting = cache_bytes(case.draft, group) + sum(workspaces(case.draft, group, 1, policy.draft_batch).values())
    verify = sum(workspaces(case.target, policy.batch * (policy.gamma + 1), 1, policy.batch).values())
    decode = layer_bytes(case.target) + head_bytes(case.target) + whole_bytes(case.draft) + drafting + verify
    kv = cache_bytes(case.target, BATCHES * policy.batch * (length + policy.gamma))
    ram = case.target.weight_bytes + whole_bytes(case.draft) + kv
    return {"vram": max(prefill["vram"], decode), "ram": ram}


def choose(case: Case) -> Policy:
    """A grid like its planner's (`benchmarks/planner.py`), with our simulator in place of its constants."""
    policies = [
        policy(case, batch, prefill_batch=max(1, batch // 4), gamma=gamma, draft_batch=draft_batch)
        for batch in (8, 16, 32, 64, 128, 256, 320)
        for gamma in (2, 4, 6, 8)
        for draft_batch in (4, 8, 16)
    ]
    return fastest(case, job, memory, policies)


SYSTEM = System("specoffload", "SpecOffload as published", choose, job, memory, drafts=True)
